// Adam, the averaged weights, and one step of training. Chapter 07.

import { lossAndGradients } from "./diffusion.js";

// Kingma and Ba 2015, algorithm 1.
export class Adam {
  constructor(weights, { beta1 = 0.9, beta2 = 0.999, tiny = 1e-8 } = {}) {
    Object.assign(this, { weights, beta1, beta2, tiny, steps: 0 });
    this.mean = new Float64Array(weights.length);
    this.square = new Float64Array(weights.length);
  }

  step(gradients, rate) {
    const { weights, mean, square, beta1, beta2, tiny } = this;
    this.steps++;
    const unbias1 = 1 / (1 - beta1 ** this.steps), unbias2 = 1 / (1 - beta2 ** this.steps);
    for (let i = 0; i < weights.length; i++) {
      const g = gradients[i];
      mean[i] += (1 - beta1) * (g - mean[i]);
      square[i] += (1 - beta2) * (g * g - square[i]);
      weights[i] -= (rate * mean[i] * unbias1) / (Math.sqrt(square[i] * unbias2) + tiny);
    }
  }
}

// A moving average of the weights; its decay grows with the steps, as in ddpm_core.training.EMA.
export class EMA {
  constructor(weights, decay = 0.998) {
    this.decay = decay;
    this.weights = weights.slice();
  }

  update(weights, step) {
    const decay = Math.min(this.decay, (1 + step) / (10 + step));
    for (let i = 0; i < weights.length; i++)
      this.weights[i] += (1 - decay) * (weights[i] - this.weights[i]);
  }
}

// n random points of the data, each with a timestep and noise of its own.
export function drawBatch(data, T, n, uniform, gaussian) {
  const x0 = new Float64Array(2 * n), t = new Int32Array(n);
  for (let i = 0; i < n; i++) {
    const k = Math.floor((uniform() * data.length) / 2);
    x0.set(data.subarray(2 * k, 2 * k + 2), 2 * i);
    t[i] = 1 + Math.floor(uniform() * T);
  }
  return [x0, t, gaussian(2 * n)];
}

export const warmup = (step, rate, steps = 50) => rate * Math.min(1, (step + 1) / steps);

export function trainStep({ net, adam, ema, alphaBar, target, rate, step }, batch) {
  const [loss, gradients] = lossAndGradients(net, alphaBar, target, ...batch);
  adam.step(gradients, warmup(step, rate));
  ema.update(net.weights, step);
  return loss;
}
