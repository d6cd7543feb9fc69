// What a film shows at a moment: positions between its states, arrows, and how it all changes
// when a newer film takes its place.

const mix = (from, to, u) => (u <= 0 ? from : from.map((v, i) => v + u * (to[i] - v)));

// The state at a position from 0 (noise) to the last state (data), which need not be whole.
export function frameAt(film, position) {
  const last = film.times.length - 1, k = Math.min(Math.floor(position), last), u = position - k;
  const between = (rows) => (k === last ? rows[k] : mix(rows[k], rows[k + 1], u));
  return {
    t: Math.round(film.times[k] + (k === last ? 0 : u * (film.times[k + 1] - film.times[k]))),
    samples: between(film.samples),
    arrows: between(film.arrows),
    densities: between(film.densities),
    trail: [Math.max(position - 1.5, 0), Math.max(position - 0.75, 0)].map((at) => {
      const j = Math.min(Math.floor(at), last);
      return j === last ? film.samples[j] : mix(film.samples[j], film.samples[j + 1], at - j);
    }),
  };
}

export function mixFrames(from, to, u) {
  if (u >= 1) return to;
  const rows = (a, b) => mix(a, b, u);
  return {
    t: to.t,
    samples: rows(from.samples, to.samples),
    arrows: rows(from.arrows, to.arrows),
    densities: to.densities,
    trail: to.trail.map((row, i) => rows(from.trail[i], row)),
  };
}

// How wrong the learned arrows are, where noisy points fall: 0 for not at all, 1 for very.
// `noise` is s at this timestep.
export function wrongness(learned, exact, noise) {
  const peak = exact.densities.reduce((a, b) => Math.max(a, b), 1e-12);
  return exact.densities.map((density, k) => {
    const dx = learned.arrows[2 * k] - exact.arrows[2 * k];
    const dy = learned.arrows[2 * k + 1] - exact.arrows[2 * k + 1];
    return Math.min(1, Math.hypot(dx, dy) / (0.1 + 0.5 * noise)) * Math.min(1, (5 * density) / peak);
  });
}

// The share of samples that are copies: three times as close to one point of the data as to any
// other, as Yoon et al. 2023 define it.
export function copies(samples, data) {
  let copied = 0;
  for (let i = 0; i < samples.length; i += 2) {
    let first = Infinity, second = Infinity;
    for (let k = 0; k < data.length; k += 2) {
      const d = (samples[i] - data[k]) ** 2 + (samples[i + 1] - data[k + 1]) ** 2;
      if (d < first) [first, second] = [d, first];
      else if (d < second) second = d;
    }
    if (9 * first <= second) copied++;
  }
  return (2 * copied) / samples.length;
}
