// From noise to data, as in ddpm_core.samplers: step(x, x0Hat, t, u, noise) -> x_u. Chapters 08, 09.

import { scales } from "./schedules.js";

// Evenly spaced from T to 0; Python rounds a half to the even number.
export const spacedTimes = (T, steps) =>
  Array.from({ length: steps + 1 }, (_, i) => {
    const time = (T * (steps - i)) / steps, floor = Math.floor(time);
    return time - floor === 0.5 ? floor + (floor % 2) : Math.round(time);
  });

// Ho et al. 2020, eqs. (6) and (7), for any u < t; the step to 0 returns x0Hat.
export const ancestralStep = (alphaBar) => (x, x0Hat, t, u, noise) => {
  if (u === 0) return x0Hat;
  const [ab_t, ab_u] = [alphaBar[t], alphaBar[u]];
  const toClean = (Math.sqrt(ab_u) * (1 - ab_t / ab_u)) / (1 - ab_t);
  const toNoisy = (Math.sqrt(ab_t / ab_u) * (1 - ab_u)) / (1 - ab_t);
  const std = Math.sqrt(((1 - ab_u) / (1 - ab_t)) * (1 - ab_t / ab_u));
  return x.map((v, i) => toClean * x0Hat[i] + toNoisy * v + std * noise[i]);
};

// Song et al. 2021 (DDIM), eq. (12) with eta = 0: along the line from x0Hat through x.
export const ddimStep = (alphaBar) => (x, x0Hat, t, u) => {
  const [[a_t, s_t], [a_u, s_u]] = [scales(alphaBar, t), scales(alphaBar, u)];
  return x.map((v, i) => a_u * x0Hat[i] + (s_u * (v - a_t * x0Hat[i])) / s_t);
};

// lambda = log(a / s), Lu et al. 2022, section 2.1.
const halfLogSnr = (ab) => (ab === 0 ? -Infinity : (Math.log(ab) - Math.log(1 - ab)) / 2);

// Lu et al. 2022 (DPM-Solver++), algorithm 2; each run needs a fresh one, which has its memory.
export function dpmSolverPP2M(alphaBar) {
  let previous = null; // x0Hat and lambda of the step before
  return (x, x0Hat, t, u) => {
    if (u === 0) return x0Hat;
    const [ab_t, ab_u] = [alphaBar[t], alphaBar[u]];
    const [lambda_t, lambda_u] = [halfLogSnr(ab_t), halfLogSnr(ab_u)];
    let estimate = x0Hat;
    if (previous) {
      const slope = (lambda_u - lambda_t) / (lambda_t - previous.lambda) / 2;
      estimate = x0Hat.map((v, i) => v + slope * (v - previous.x0Hat[i]));
    }
    previous = { x0Hat, lambda: lambda_t };
    const kept = Math.sqrt((1 - ab_u) / (1 - ab_t));
    const gained = -Math.sqrt(ab_u) * Math.expm1(lambda_t - lambda_u);
    return x.map((v, i) => kept * v + gained * estimate[i]);
  };
}

const LARGEST_SIGMA = 80; // Karras et al. 2022, table 1

const beginsInNoise = (alphaBar) => halfLogSnr(alphaBar.at(-1)) < -Math.log(LARGEST_SIGMA);

// How many steps of Heun's method the network calls are enough for.
const heunIntervals = (alphaBar, calls) =>
  Math.min(calls, Math.floor((calls + beginsInNoise(alphaBar)) / 2) + 1);

// Karras et al. 2022, algorithm 1, without churn. A step takes two calls; the last one, and as
// many at the start as the number of calls demands, are Euler's, which are DDIM's.
export function heun(alphaBar, denoise, calls) {
  const ddim = ddimStep(alphaBar);
  const eulerSteps = 2 * heunIntervals(alphaBar, calls) - 1 - calls;
  let taken = 0;
  return (x, x0Hat, t, u) => {
    taken++;
    const euler = ddim(x, x0Hat, t, u);
    if (u === 0 || taken <= eulerSteps) return euler;
    const [root_t, root_u] = [Math.sqrt(alphaBar[t]), Math.sqrt(alphaBar[u])];
    const sigma_t = Math.sqrt(1 / alphaBar[t] - 1), sigma_u = Math.sqrt(1 / alphaBar[u] - 1);
    const there = denoise(euler, u);
    return x.map((v, i) => {
      const first = (v / root_t - x0Hat[i]) / sigma_t;
      const second = (euler[i] / root_u - there[i]) / sigma_u;
      return root_u * (v / root_t + ((sigma_u - sigma_t) * (first + second)) / 2);
    });
  };
}

const sameNumber = (alphaBar, calls) => calls;

// Each makes the step of a run, and says how many steps the network calls are enough for.
export const SAMPLERS = {
  ancestral: { make: ancestralStep, intervals: sameNumber },
  ddim: { make: ddimStep, intervals: sameNumber },
  "dpm-solver++": { make: dpmSolverPP2M, intervals: sameNumber },
  heun: { make: heun, intervals: heunIntervals },
};

// Yields { t, x, x0Hat } at each timestep, as ddpm_core.samplers.sample_by_name; at t = 0 x0Hat
// is x. `noise(n)` draws n Gaussian numbers.
export function* sample(name, alphaBar, denoise, x, calls, noise) {
  const { make, intervals } = SAMPLERS[name];
  const times = spacedTimes(alphaBar.length - 1, intervals(alphaBar, calls));
  const step = make(alphaBar, denoise, calls);
  for (let k = 0; k + 1 < times.length; k++) {
    const x0Hat = denoise(x, times[k]);
    yield { t: times[k], x, x0Hat };
    x = step(x, x0Hat, times[k], times[k + 1], noise(x.length));
  }
  yield { t: 0, x, x0Hat: x };
}
