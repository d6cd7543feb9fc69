// Noise schedules, as in ddpm_core.schedules: alphaBar[t] for t = 0..T. Chapter 05.

const linspace = (start, end, n) =>
  Array.from({ length: n }, (_, i) => start + ((end - start) * i) / (n - 1));

function fromBeta(beta) {
  const alphaBar = [1];
  for (const b of beta) alphaBar.push(alphaBar.at(-1) * (1 - b));
  return alphaBar;
}

const fromCurve = (f, maxBeta = 0.999) =>
  fromBeta(f.slice(1).map((v, i) => Math.min(1 - v / f[i], maxBeta)));

// Ho et al. 2020, section 4; the ends of beta are scaled so that every T ends as T = 1000 does.
export const linearSchedule = (T) => fromBeta(linspace(0.1 / T, 20 / T, T));

// Nichol and Dhariwal 2021, eq. (17).
export const cosineSchedule = (T, offset = 0.008) =>
  fromCurve(
    linspace(0, 1, T + 1).map((u) => Math.cos((((u + offset) / (1 + offset)) * Math.PI) / 2) ** 2),
  );

// Jabri et al. 2023, figure 8.
export function sigmoidSchedule(T) {
  const s = linspace(-3, 3, T + 1).map((x) => 1 / (1 + Math.exp(-x)));
  return fromCurve(s.map((v) => (s[T] - v) / (s[T] - s[0])));
}

// The straight line of flow matching at constant variance; it ends in pure noise. Chapter 13.
export const flowSchedule = (T) =>
  linspace(0, 1, T + 1).map((l) => (1 - l) ** 2 / ((1 - l) ** 2 + l ** 2));

export const SCHEDULES = {
  linear: linearSchedule,
  cosine: cosineSchedule,
  sigmoid: sigmoidSchedule,
  flow: flowSchedule,
};

// [a, s] of x_t = a x0 + s eps.
export const scales = (alphaBar, t) => [Math.sqrt(alphaBar[t]), Math.sqrt(1 - alphaBar[t])];
