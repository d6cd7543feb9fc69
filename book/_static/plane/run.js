// One run: a network, its data, the exact answers beside it, and the films that the page shows.

import { addNoise, makeDenoiser, TARGETS, wanted } from "./diffusion.js";
import { idealDenoiser } from "./mixtures.js";
import { PlaneNet } from "./plane_net.js";
import { gaussians, uniforms } from "./random.js";
import { sample } from "./samplers.js";
import { scales, SCHEDULES } from "./schedules.js";
import { Adam, drawBatch, EMA, trainStep } from "./training.js";

export const T = 100;
export const BATCH = 128;
export const RATE = 4e-3;
export const GRID = 17; // arrows along a side of the window
export const WINDOW = 2.5; // the window shows x and y from -WINDOW to WINDOW
export const SAMPLES = 200;
const EVALUATED = 800; // points on which the loss is measured
const FRAMES = 20; // states of a film, at most

export const gridPoint = (k) => WINDOW * ((2 * (k + 0.5)) / GRID - 1);

function gridPoints() {
  const points = new Float64Array(2 * GRID * GRID);
  for (let i = 0; i < GRID * GRID; i++) {
    points[2 * i] = gridPoint(i % GRID);
    points[2 * i + 1] = gridPoint(Math.floor(i / GRID));
  }
  return points;
}

const meanSquare = (output, answer) =>
  output.reduce((sum, v, i) => sum + (v - answer[i]) ** 2, 0) / output.length;

export class Run {
  // settings: { data, schedule, target, width, timed, seed }
  constructor(settings) {
    const { data, schedule, target, width, timed, seed = 0 } = settings;
    Object.assign(this, { data, target, step: 0, rate: RATE });
    this.alphaBar = SCHEDULES[schedule](T);
    if (target === "eps" && this.alphaBar[T] === 0)
      throw new Error(
        "This schedule ends in pure noise, where the noise is x itself and says nothing of the " +
          "data: choose x0, v or flow as the target, or another schedule.",
      );
    this.net = new PlaneNet({ width, T, timed, seed });
    this.averaged = new PlaneNet({ width, T, timed, seed });
    this.adam = new Adam(this.net.weights);
    this.ema = new EMA(this.net.weights);
    this.uniform = uniforms(2 * seed + 11);
    this.gaussian = gaussians(2 * seed + 12);
    this.ideal = idealDenoiser(data, this.alphaBar);
    this.prepareEvaluation();
  }

  // Fixed points, every timestep equally often, and the loss of the exact answer on them.
  prepareEvaluation() {
    const [x0, t, eps] = drawBatch(this.data, T, EVALUATED, uniforms(7), gaussians(8));
    for (let i = 0; i < EVALUATED; i++) t[i] = 1 + (i % T);
    const x = addNoise(this.alphaBar, x0, t, eps);
    const answer = wanted(this.alphaBar, this.target, x0, t, eps);
    this.evaluated = { x, t, answer };
    this.floor = meanSquare(this.exactOutput(x, t), answer);
  }

  // What a perfect network would put out: the target of E[x0 | x_t] and the eps that goes with it.
  exactOutput(x, t) {
    const output = new Float64Array(x.length);
    for (let i = 0; i < x.length; i += 2) {
      const [a, s] = scales(this.alphaBar, t[i >> 1]);
      const x0Hat = this.ideal(x.subarray(i, i + 2), t[i >> 1]);
      for (let c = 0; c < 2; c++) {
        const eps = (x[i + c] - a * x0Hat[c]) / s;
        output[i + c] = TARGETS[this.target].fromClean(x0Hat[c], eps, a, s);
      }
    }
    return output;
  }

  // One step on a fresh batch; returns the loss of the batch.
  train() {
    const loss = trainStep(this, drawBatch(this.data, T, BATCH, this.uniform, this.gaussian));
    this.step++;
    return loss;
  }

  network(averaged) {
    if (!averaged) return this.net;
    this.averaged.weights.set(this.ema.weights);
    return this.averaged;
  }

  // The loss of the network on the fixed points, to be compared with `floor`.
  evaluate(averaged) {
    const { x, t, answer } = this.evaluated;
    return meanSquare(this.network(averaged).forward(x, t), answer);
  }

  denoiser(averaged) {
    return makeDenoiser(this.network(averaged), this.alphaBar, this.target);
  }

  // Samples on their way, { t, x } at FRAMES states or fewer, from noise that is the same each
  // time. A generator: a yield is a moment at which the worker may do something else.
  *sampled(denoise, { sampler, steps }) {
    const noise = gaussians(3), states = [];
    for (const { t, x } of sample(sampler, this.alphaBar, denoise, noise(2 * SAMPLES), steps, noise)) {
      states.push({ t, x });
      yield;
    }
    const last = states.length - 1, stride = Math.max(1, Math.ceil(last / FRAMES));
    return states.filter((_, k) => k % stride === 0 || k === last);
  }

  // The arrows at these timesteps: from each point of the grid to a x0_hat, and for the exact
  // field the density too. At t = 0 there is nothing to denoise: the arrows of t = 1 stand there.
  *fields(denoise, times) {
    const x = gridPoints(), arrows = [], densities = [];
    for (const t of times) {
      const [a] = scales(this.alphaBar, Math.max(t, 1));
      const density = new Float64Array(GRID * GRID);
      const x0Hat = denoise(x, Math.max(t, 1), density);
      arrows.push(Float32Array.from(x0Hat, (v, i) => a * v - x[i]));
      densities.push(Float32Array.from(density));
      yield;
    }
    return { arrows, densities };
  }

  *film(denoise, sampling) {
    const states = yield* this.sampled(denoise, sampling);
    const times = states.map(({ t }) => t);
    const { arrows, densities } = yield* this.fields(denoise, times);
    return { times, samples: states.map(({ x }) => Float32Array.from(x)), arrows, densities };
  }

  learnedFilm(sampling) {
    // a network of its own, whose weights do not change while the film is made
    const net = new PlaneNet(this.net);
    net.weights.set(this.network(sampling.averaged).weights);
    return this.film(makeDenoiser(net, this.alphaBar, this.target), sampling);
  }

  exactFilm(sampling) {
    return this.film(this.ideal, sampling);
  }
}
