// A model run in the page: its words, two samplers, guidance, the inpainting of chapter 12, and its
// files, which book/_ext/browser_export.py wrote. Tests compare every step with the library's.

const BESIDE = new URL(".", document.currentScript.src);

// Words ------------------------------------------------------------------------------------

// The length of what two words share, as Python's difflib counts it: the longest common part,
// and then what is shared to the left and to the right of it.
function shared(a, b) {
  let [size, i, j] = [0, 0, 0];
  for (let p = 0; p < a.length; p++)
    for (let q = 0; q < b.length; q++) {
      let n = 0;
      while (p + n < a.length && a[p + n] === b[q + n]) n++;
      if (n > size) [size, i, j] = [n, p, q];
    }
  if (!size) return 0;
  return size + shared(a.slice(0, i), b.slice(0, j)) + shared(a.slice(i + size), b.slice(j + size));
}

function nearest(word, words) {
  const likeness = (known) => (2 * shared(known, word)) / (known.length + word.length);
  return words
    .filter((known) => likeness(known) >= 0.7)
    .sort((a, b) => likeness(b) - likeness(a))
    .slice(0, 3);
}

function tokenize(prompt, { words, length, tokens }) {
  const said = prompt.toLowerCase().match(/[\p{L}\p{N}_']+/gu) ?? [];
  if (said.length > length - 2)
    throw new Error(`The prompt has ${said.length} words, at most ${length - 2} fit.`);
  const numbers = said.map((word) => {
    if (words.includes(word)) return tokens.first + words.indexOf(word);
    const near = nearest(word, words);
    const known = near.length ? `do you mean ${near.join(" or ")}?` : "none is like it.";
    throw new Error(`Unknown word “${word}”: ${known} All words: ${words.join(", ")}`);
  });
  const row = [tokens.begin, ...numbers, tokens.end];
  return [...row, ...Array(length - row.length).fill(tokens.pad)];
}

// The samplers -------------------------------------------------------------------------------

// Evenly spaced from T to t_end, and from there to 0; Python rounds a half to the even number.
function spacedTimes(T, steps, t_end) {
  if (t_end) return [...spacedTimes(T - t_end, steps - 1, 0).map((t) => t_end + t), 0];
  return Array.from({ length: steps + 1 }, (_, i) => {
    const time = (T * (steps - i)) / steps;
    const floor = Math.floor(time);
    return time - floor === 0.5 ? floor + (floor % 2) : Math.round(time);
  });
}

const TO_CLEAN = {
  eps: (x, out, a, s) => (x - s * out) / a,
  x0: (x, out) => out,
  v: (x, out, a, s) => a * x - s * out,
};

const scales = (alphaBar) => [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];

const ddim = (alphaBar) => (x, x0, t, u) => {
  const [[a_t, s_t], [a_u, s_u]] = [scales(alphaBar[t]), scales(alphaBar[u])];
  const eps = x.map((v, i) => (v - a_t * x0[i]) / s_t);
  return x0.map((v, i) => a_u * v + s_u * eps[i]);
};

// The step of DDPM: it draws x_u from q(x_u | x_t, x_0 = x0).
const ancestral = (alphaBar, noise) => (x, x0, t, u) => {
  if (!u) return x0;
  const [ab_t, ab_u] = [alphaBar[t], alphaBar[u]];
  const renewed = (1 - ab_t / ab_u) / (1 - ab_t);
  const toClean = Math.sqrt(ab_u) * renewed;
  const toNoisy = (Math.sqrt(ab_t / ab_u) * (1 - ab_u)) / (1 - ab_t);
  const [std, eps] = [Math.sqrt(renewed * (1 - ab_u)), noise()];
  return x0.map((v, i) => toClean * v + toNoisy * x[i] + std * eps[i]);
};

const SAMPLERS = { ddim, ancestral };

// The condition of a prompt and of the empty one.
function encode({ text, settings }, prompt) {
  const { prompts } = settings;
  const rows = [...tokenize(prompt, prompts), ...tokenize("", prompts)];
  const tokens = new ort.Tensor("int64", BigInt64Array.from(rows, BigInt), [2, prompts.length]);
  return text.run({ tokens });
}

// (x, t) -> x0, clipped: the prompt's clean car, guided; without words, what the network sees.
async function makeDenoiser(model, prompt, scale) {
  const { unet, settings: { alpha_bar: alphaBar, target, shape, prompts } } = model;
  const [rows, condition] = prompts ? [2, await encode(model, prompt)] : [1, {}];
  return async (x, t) => {
    const batch = new Float32Array(rows * x.length);
    for (let row = 0; row < rows; row++) batch.set(x, row * x.length);
    const { predicted } = await unet.run({
      x_t: new ort.Tensor("float32", batch, [rows, ...shape]),
      t: new ort.Tensor("int64", new BigInt64Array(rows).fill(BigInt(t)), [rows]),
      ...condition,
    });
    const [a, s] = scales(alphaBar[t]);
    const clean = (row, i) => TO_CLEAN[target](x[i], predicted.data[row * x.length + i], a, s);
    const guided = (i) => clean(1, i) + scale * (clean(0, i) - clean(1, i));
    return x.map((_, i) => Math.min(Math.max(prompts ? guided(i) : clean(0, i), -1), 1));
  };
}

// The picture that a small image stands for: itself, unless the model has a decoder.
async function decode({ decoder, settings }, x) {
  if (!decoder) return x;
  const latents = new ort.Tensor("float32", x, [1, ...settings.shape]);
  return (await decoder.run({ latents })).picture.data;
}

// Yields { t, x, x0 } at each time, as ddpm_core.samplers.sample does; at t = 0 x0 is x.
async function* sample(denoise, step, x, times) {
  for (let k = 0; k + 1 < times.length; k++) {
    const [t, u] = [times[k], times[k + 1]];
    const x0 = await denoise(x, t);
    yield { t, x, x0 };
    x = await step(x, x0, t, u);
  }
  yield { t: 0, x, x0: x };
}

// Inpainting, as in ddpm_core.editing --------------------------------------------------------

// After each step the car is put back where it is kept, noised to that time.
const replacing = (alphaBar, step, car, keep, noise) => (x, x0, t, u) => {
  const [a_u, s_u] = scales(alphaBar[u]);
  const [drawn, eps] = [step(x, x0, t, u), noise()];
  return drawn.map((v, i) => (keep[i % keep.length] ? a_u * car[i] + s_u * eps[i] : v));
};

// Each step is made `rounds` times, and its result noised back to t in between.
const resampling = (alphaBar, step, denoise, rounds, noise) => async (x, x0, t, u) => {
  const [a, s] = scales(alphaBar[t] / alphaBar[u]);
  let x_u = step(x, x0, t, u);
  for (let round = 1; u && round < rounds; round++) {
    const eps = noise();
    const x_t = x_u.map((v, i) => a * v + s * eps[i]);
    x_u = step(x_t, await denoise(x_t, t), t, u);
  }
  return x_u;
};

// Files ----------------------------------------------------------------------------------------

const RUNTIME = { path: "onnxruntime/ort-wasm-simd-threaded.wasm", bytes: 14_239_897 };

async function request(path, signal) {
  const response = await fetch(new URL(path, BESIDE), { cache: "no-cache", signal }).catch((error) => {
    if (signal?.aborted) throw error;
    throw new Error("The model could not be loaded: the server does not answer. Is there a " +
      "connection? Press Draw to try again.");
  });
  if (!response.ok)
    throw new Error(`The model could not be loaded: the server has no ${path} (${response.status}).`);
  return response;
}

const loadSettings = async (name) => (await request(`models/${name}/model.json`)).json();

// Loads files side by side, and tells how much of all of them is there.
function loadFiles(files, signal, tell) {
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let loaded = 0;
  return Promise.all(files.map(async ({ path }) => {
    const { body } = await request(path, signal);
    const parts = [];
    const reader = body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      loaded += part.value.length;
      tell(loaded, total);
    }
    return new Blob(parts).arrayBuffer();
  }));
}

let ort; // the runtime, one for all models of a page

// The model of that name: its settings, and its graphs by their names, ready to run.
async function loadModel(name, settings, signal, tell) {
  if (typeof WebAssembly !== "object")
    throw new Error("This browser has WebAssembly switched off, or is too old to have it, and the " +
      "model needs it. Another browser will do; on an iPhone, Lockdown Mode switches it off.");
  const graphs = Object.entries(settings.graphs);
  const files = graphs.map(([graph, bytes]) => ({ path: `models/${name}/${graph}.onnx`, bytes }));
  const loaded = await loadFiles(ort ? files : [...files, RUNTIME], signal, tell);
  if (!ort) {
    const module = await import(new URL("onnxruntime/ort.wasm.bundle.min.mjs", BESIDE));
    module.env.wasm.wasmBinary = loaded.at(-1);
    module.env.wasm.numThreads = 1; // more would need headers that few servers send
    ort = module;
  }
  const model = { settings };
  for (const [k, [graph]] of graphs.entries())
    model[graph] = await ort.InferenceSession.create(loaded[k]).catch((error) => {
      throw new Error(`The model was loaded, but this browser cannot run it (${error.message}).`);
    });
  return model;
}
