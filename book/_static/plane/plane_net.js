// The network of chapter 07's model in the plane, with its backpropagation by hand.
//
//   h = enter(x, sin(f x), cos(f x)) + time(embedding of t)
//   three times: h = h + hidden(silu(h))
//   output = leave(silu(h))
//
// All weights lie in one array, so that Adam and the average are one loop each.

import { uniforms } from "./random.js";

const FREQUENCIES = [1.5, 3, 6, 12, 24];
const FEATURES = 2 + 4 * FREQUENCIES.length;
const BLOCKS = 3;

// C += A B for m x k and k x n; each matrix has a stride for its rows and one for its columns.
// Four rows by two columns at a time, so that each number that is read is used more than once.
function multiply(C, cr, cc, A, ar, ac, B, br, bc, m, n, k) {
  let i = 0;
  for (; i + 3 < m; i += 4) {
    let j = 0;
    for (; j + 1 < n; j += 2) {
      let a0 = i * ar, b0 = j * bc;
      let s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0;
      for (let p = 0; p < k; p++, a0 += ac, b0 += br) {
        const u = B[b0], v = B[b0 + bc];
        const w0 = A[a0], w1 = A[a0 + ar], w2 = A[a0 + 2 * ar], w3 = A[a0 + 3 * ar];
        s00 += w0 * u; s01 += w0 * v;
        s10 += w1 * u; s11 += w1 * v;
        s20 += w2 * u; s21 += w2 * v;
        s30 += w3 * u; s31 += w3 * v;
      }
      const c = i * cr + j * cc;
      C[c] += s00; C[c + cc] += s01;
      C[c + cr] += s10; C[c + cr + cc] += s11;
      C[c + 2 * cr] += s20; C[c + 2 * cr + cc] += s21;
      C[c + 3 * cr] += s30; C[c + 3 * cr + cc] += s31;
    }
    for (; j < n; j++)
      for (let r = i; r < i + 4; r++) C[r * cr + j * cc] += dot(A, r * ar, ac, B, j * bc, br, k);
  }
  for (; i < m; i++)
    for (let j = 0; j < n; j++) C[i * cr + j * cc] += dot(A, i * ar, ac, B, j * bc, br, k);
}

function dot(A, a, ac, B, b, br, k) {
  let sum = 0;
  for (let p = 0; p < k; p++, a += ac, b += br) sum += A[a] * B[b];
  return sum;
}

// output = W input + b for each row; W is `outputs` x `inputs`, as in torch.nn.Linear.
class Linear {
  constructor(inputs, outputs, weights, gradients) {
    this.inputs = inputs;
    this.outputs = outputs;
    [this.W, this.b] = weights;
    [this.dW, this.db] = gradients;
  }

  forward(input, rows) {
    const { inputs, outputs } = this;
    this.input = input;
    const output = new Float64Array(rows * outputs);
    for (let r = 0; r < rows; r++) output.set(this.b, r * outputs);
    multiply(output, outputs, 1, input, inputs, 1, this.W, 1, inputs, rows, outputs, inputs);
    return output;
  }

  // Adds to dW = d^T input and db, and returns d W, the gradient for the input.
  backward(d, rows) {
    const { inputs, outputs } = this;
    multiply(this.dW, inputs, 1, d, 1, outputs, this.input, inputs, 1, outputs, inputs, rows);
    for (let i = 0; i < d.length; i++) this.db[i % outputs] += d[i];
    const dInput = new Float64Array(rows * inputs);
    multiply(dInput, inputs, 1, d, outputs, 1, this.W, inputs, 1, rows, inputs, outputs);
    return dInput;
  }
}

const silu = (h) => h.map((v) => v / (1 + Math.exp(-v)));

// d silu / dh = sigmoid(h) (1 + h (1 - sigmoid(h)))
const siluBackward = (d, h) =>
  d.map((v, i) => {
    const sigmoid = 1 / (1 + Math.exp(-h[i]));
    return v * sigmoid * (1 + h[i] * (1 - sigmoid));
  });

const add = (h, other) => h.map((v, i) => v + other[i]);

// Sines and cosines of t = 0..T, one row each, as ddpm_core.unet.SinusoidalEmbedding.
function embedTimes(T, dim) {
  const half = dim / 2, rows = new Float64Array((T + 1) * dim);
  for (let t = 0; t <= T; t++)
    for (let k = 0; k < half; k++) {
      const angle = t * Math.exp((-Math.log(10000) * k) / (half - 1));
      rows[t * dim + k] = Math.sin(angle);
      rows[t * dim + half + k] = Math.cos(angle);
    }
  return rows;
}

// x and its waves: the waves of the first coordinate, then those of the second.
function embedPoints(x) {
  const count = FREQUENCIES.length, features = new Float64Array((x.length / 2) * FEATURES);
  for (let i = 0, at = 0; i < x.length; i += 2, at += FEATURES) {
    features[at] = x[i];
    features[at + 1] = x[i + 1];
    for (let k = 0; k < 2 * count; k++) {
      const angle = x[i + (k < count ? 0 : 1)] * FREQUENCIES[k % count];
      features[at + 2 + k] = Math.sin(angle);
      features[at + 2 + 2 * count + k] = Math.cos(angle);
    }
  }
  return features;
}

export class PlaneNet {
  // Without `timed` the network is not given t and must guess the noise level from the point.
  constructor({ width = 64, T = 100, timed = true, seed = 0 } = {}) {
    Object.assign(this, { width, T, timed });
    const shapes = [[FEATURES, width], [width, width]];
    for (let i = 0; i < BLOCKS; i++) shapes.push([width, width]);
    shapes.push([width, 2]);
    const size = shapes.reduce((sum, [inputs, outputs]) => sum + (inputs + 1) * outputs, 0);
    this.weights = new Float64Array(size);
    this.gradients = new Float64Array(size);
    let at = 0;
    this.layers = shapes.map(([inputs, outputs]) => {
      const parts = [this.weights, this.gradients].map((array) => [
        array.subarray(at, at + inputs * outputs),
        array.subarray(at + inputs * outputs, at + (inputs + 1) * outputs),
      ]);
      at += (inputs + 1) * outputs;
      return new Linear(inputs, outputs, ...parts);
    });
    [this.enter, this.time] = this.layers;
    this.hidden = this.layers.slice(2, -1);
    this.leave = this.layers.at(-1);
    this.times = embedTimes(T, width);
    this.initialise(uniforms(seed + 1));
  }

  // As torch.nn.Linear begins, but for the last layer, which begins at zero.
  initialise(uniform) {
    for (const { W, b, inputs } of this.layers.slice(0, -1))
      for (const array of [W, b])
        for (let i = 0; i < array.length; i++) array[i] = (2 * uniform() - 1) / Math.sqrt(inputs);
  }

  // x: n points, t: n timesteps -> n outputs. Keeps what `backward` needs.
  forward(x, t) {
    const n = t.length, { width } = this;
    let h = this.enter.forward(embedPoints(x), n);
    this.t = t;
    if (this.timed) this.addTimes(h, t);
    this.kept = [];
    for (const layer of this.hidden) {
      this.kept.push(h);
      h = add(h, layer.forward(silu(h), n));
    }
    this.kept.push(h);
    return this.leave.forward(silu(h), n);
  }

  // Each timestep's row is computed once, however many points have it.
  addTimes(h, t) {
    const { width, T } = this, rows = this.time.forward(this.times, T + 1);
    for (let i = 0; i < t.length; i++)
      for (let k = 0; k < width; k++) h[i * width + k] += rows[t[i] * width + k];
  }

  // From the gradient for the output to that for each weight, in the order of `weights`.
  backward(dOutput) {
    const n = dOutput.length / 2, { width, T, t } = this;
    this.gradients.fill(0);
    let d = siluBackward(this.leave.backward(dOutput, n), this.kept[BLOCKS]);
    for (let i = BLOCKS - 1; i >= 0; i--)
      d = add(d, siluBackward(this.hidden[i].backward(d, n), this.kept[i]));
    this.enter.backward(d, n);
    if (this.timed) {
      const rows = new Float64Array((T + 1) * width);
      for (let i = 0; i < d.length; i++) rows[t[(i / width) | 0] * width + (i % width)] += d[i];
      this.time.backward(rows, T + 1);
    }
    return this.gradients;
  }
}
