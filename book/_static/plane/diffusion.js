// Noising, targets and the loss, as in ddpm_core.diffusion. Chapters 05, 07 and 13.
// A batch of n points is one Float64Array x, y, x, y, ... of length 2n.

import { scales } from "./schedules.js";

// fromClean is what the network regresses, toClean turns its output into x0_hat.
export const TARGETS = {
  eps: {
    fromClean: (x0, eps) => eps,
    toClean: (output, x, a, s) => (x - s * output) / a,
  },
  x0: {
    fromClean: (x0) => x0,
    toClean: (output) => output,
  },
  v: {
    fromClean: (x0, eps, a, s) => a * eps - s * x0,
    toClean: (output, x, a, s) => a * x - s * output,
  },
  flow: {
    fromClean: (x0, eps) => eps - x0,
    toClean: (output, x, a, s) => (x - s * output) / (a + s),
  },
};

// x_t = a x0 + s eps, with a timestep for each point: Ho et al. 2020, eq. (4).
export function addNoise(alphaBar, x0, t, eps) {
  return x0.map((v, i) => {
    const [a, s] = scales(alphaBar, t[i >> 1]);
    return a * v + s * eps[i];
  });
}

// What the network should answer for these points.
export function wanted(alphaBar, target, x0, t, eps) {
  return x0.map((v, i) => TARGETS[target].fromClean(v, eps[i], ...scales(alphaBar, t[i >> 1])));
}

// The mean squared error of the network, and its gradient for each of the weights: eq. (14).
export function lossAndGradients(net, alphaBar, target, x0, t, eps) {
  const output = net.forward(addNoise(alphaBar, x0, t, eps), t);
  const error = wanted(alphaBar, target, x0, t, eps).map((v, i) => output[i] - v);
  const loss = error.reduce((sum, e) => sum + e * e, 0) / error.length;
  return [loss, net.backward(error.map((e) => (2 * e) / error.length))];
}

// (x_t, t) -> x0_hat, all that a sampler needs; t is one number for all points.
export function makeDenoiser(net, alphaBar, target) {
  return (x, t) => {
    const [a, s] = scales(alphaBar, t);
    const output = net.forward(x, new Int32Array(x.length / 2).fill(t));
    return output.map((v, i) => TARGETS[target].toClean(v, x[i], a, s));
  };
}
