// The perfect denoiser of a finite set of points, as in ddpm_core.mixtures. Chapter 07.

import { scales } from "./schedules.js";

// (x_t, t) -> E[x0 | x_t] if x0 is one of the points, each equally likely: the mean of the
// points, weighted by N(x_t; a x_i, s^2). Karras et al. 2022, appendix B.3. With `density`,
// an array of length n, it also fills in the density of x_t.
export function idealDenoiser(data, alphaBar) {
  return (x, t, density = null) => {
    const [a, s] = scales(alphaBar, t);
    const x0Hat = new Float64Array(x.length);
    for (let i = 0; i < x.length; i += 2) {
      const p = posteriorMean(data, x[i], x[i + 1], a, s, x0Hat, i);
      if (density) density[i >> 1] = p;
    }
    return x0Hat;
  };
}

const squares = { at: new Float64Array(0) }; // reused from call to call

function posteriorMean(data, x, y, a, s, out, at) {
  const n = data.length / 2;
  if (squares.at.length < n) squares.at = new Float64Array(n);
  const squared = squares.at;
  let nearest = Infinity;
  for (let k = 0; k < n; k++) {
    const dx = x - a * data[2 * k], dy = y - a * data[2 * k + 1];
    const d = dx * dx + dy * dy;
    squared[k] = d;
    if (d < nearest) nearest = d;
  }
  const scale = 1 / (2 * s * s);
  let sum = 0, sumX = 0, sumY = 0;
  for (let k = 0; k < n; k++) {
    const exponent = (squared[k] - nearest) * scale;
    if (exponent > 36) continue; // below the precision of the sum
    const weight = Math.exp(-exponent);
    sum += weight;
    sumX += weight * data[2 * k];
    sumY += weight * data[2 * k + 1];
  }
  out[at] = sumX / sum;
  out[at + 1] = sumY / sum;
  return (sum / n) * Math.exp(-nearest * scale) * (scale / Math.PI);
}
