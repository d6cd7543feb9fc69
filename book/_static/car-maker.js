// The text model of chapter 10, run in the page: DDIM with guidance, watched step by step, and
// the inpainting of chapter 12. book/_ext/browser_export.py wrote its files; tests compare every step with
// the library's.

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

// The sampler --------------------------------------------------------------------------------

// Evenly spaced from T to 0; Python rounds a half to the even number.
const spacedTimes = (T, steps) =>
  Array.from({ length: steps + 1 }, (_, i) => {
    const time = (T * (steps - i)) / steps;
    const floor = Math.floor(time);
    return time - floor === 0.5 ? floor + (floor % 2) : Math.round(time);
  });

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

// (x, t) -> x0: the prompt's clean car, guided and clipped.
async function makeDenoiser({ ort, text, unet, settings }, prompt, scale) {
  const { alpha_bar: alphaBar, target, shape, length } = settings;
  const rows = [...tokenize(prompt, settings), ...tokenize("", settings)];
  const tokens = new ort.Tensor("int64", BigInt64Array.from(rows, BigInt), [2, length]);
  const condition = await text.run({ tokens });
  return async (x, t) => {
    const both = new Float32Array(2 * x.length);
    both.set(x);
    both.set(x, x.length);
    const { predicted } = await unet.run({
      x_t: new ort.Tensor("float32", both, [2, ...shape]),
      t: new ort.Tensor("int64", BigInt64Array.of(BigInt(t), BigInt(t)), [2]),
      ...condition,
    });
    const [a, s] = scales(alphaBar[t]);
    const clean = (offset, i) => TO_CLEAN[target](x[i], predicted.data[i + offset], a, s);
    return x.map((_, i) => {
      const [cond, uncond] = [clean(0, i), clean(x.length, i)];
      return Math.min(Math.max(uncond + scale * (cond - uncond), -1), 1);
    });
  };
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

// What it needs ------------------------------------------------------------------------------

const BYTES = { "text.onnx": 248_920, "unet.onnx": 3_144_477, "ort-wasm-simd-threaded.wasm": 14_239_897 };

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

const loadSettings = async () => (await request("model/model.json")).json();

// Loads files side by side, and tells how much of all of them is there.
function loadFiles(paths, signal, tell) {
  const total = paths.reduce((sum, path) => sum + BYTES[path.split("/").at(-1)], 0);
  let loaded = 0;
  return Promise.all(paths.map(async (path) => {
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

async function loadNetworks(signal, tell) {
  if (typeof WebAssembly !== "object")
    throw new Error("This browser has WebAssembly switched off, or is too old to have it, and the " +
      "model needs it. Another browser will do; on an iPhone, Lockdown Mode switches it off.");
  const [text, unet, wasm] = await loadFiles(
    ["model/text.onnx", "model/unet.onnx", "onnxruntime/ort-wasm-simd-threaded.wasm"], signal, tell);
  const ort = await import(new URL("onnxruntime/ort.wasm.bundle.min.mjs", BESIDE));
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more would need headers that few servers send
  const open = (bytes) =>
    ort.InferenceSession.create(bytes).catch((error) => {
      throw new Error(`The model was loaded, but this browser cannot run it (${error.message}).`);
    });
  return { ort, text: await open(text), unet: await open(unet) };
}

// The figure -----------------------------------------------------------------------------------

const MAKER = `
  <fieldset>
    <legend>A car out of noise</legend>
    <label>colour <select name="colour"></select></label>
    <label>body <select name="body"></select></label>
    <label>light <select name="time"></select></label>
    <span class="buttons"><button name="draw">Draw</button>
      <button name="another" type="button">Another</button>
      <button name="stop" type="button" hidden>Stop</button></span>
    <details class="more" open><summary>Prompt, guidance, steps, seed</summary>
      <label class="time">prompt <input name="prompt" type="text" autocomplete="off"></label>
      <label>guidance <input name="scale" type="number" min="0" max="10" step="0.5"></label>
      <label>steps <input name="steps" type="number" min="1" max="100" value="20"></label>
      <label>seed <input name="seed" type="number" min="0" max="999999" value="1"></label>
    </details>
  </fieldset>
  <div class="stage">
    <p class="said" role="status">Press Draw. No step has been made yet.</p>
    <progress value="0" max="1" aria-label="how far it is"></progress>
    <div class="shown">
      <figure><canvas class="state" role="img" aria-label="x_t: nothing drawn yet"></canvas>
        <figcaption>x<sub>t</sub>, the state</figcaption></figure>
      <figure><canvas class="clean" role="img" aria-label="x̂0: nothing drawn yet"></canvas>
        <figcaption>x̂<sub>0</sub>, the car seen in it</figcaption></figure>
    </div>
    <label class="time">step <input name="step" type="range" min="0" max="0" value="0" disabled>
      <output name="at"></output></label>
  </div>
  <fieldset class="easel" hidden>
    <legend>Paint over a part of it</legend>
    <div class="picture"><canvas class="car" role="img"></canvas><svg aria-hidden="true">
      <pattern id="hatch" width="1.6" height="1.6" patternUnits="userSpaceOnUse"
        patternTransform="rotate(45)"><path d="M0 0h1.6v1.6h-1.6z" fill="#fff" opacity=".55"/>
        <path d="M0 0h.25v1.6h-.25z" fill="#000"/></pattern>
      <path class="hatched" fill="url(#hatch)"/></svg></div>
    <div class="tools">
      <p>Paint on the picture, or choose parts of it. What is hatched will be drawn anew from
        the new prompt; the rest stays.</p>
      <div class="parts" role="group" aria-label="parts to paint over"></div>
      <label>brush <input name="brush" type="range" min="2" max="12" value="5"></label>
      <label><input name="erase" type="checkbox"> erase instead</label>
      <button name="clear" type="button">Clear the mask</button>
      <output name="covered"></output>
      <label class="time">new prompt <input name="wish" type="text" autocomplete="off"></label>
      <label>rounds <input name="rounds" type="number" min="1" max="10" value="1"></label>
      <button name="paint" type="button">Paint over</button>
    </div>
  </fieldset>`;

function drawImage(canvas, x) {
  const { width, height } = canvas;
  const picture = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = (x[c * width * height + i] + 1) * 127.5;
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const article = (word) => (/^[aeiou]/.test(word) ? "an" : "a");

function openMaker(place, settings) {
  const form = document.createElement("form");
  form.className = "laboratory maker";
  form.innerHTML = MAKER;
  const field = form.elements;
  const [stage, state, clean, said, progress, easel, car] =
    [".stage", ".state", ".clean", ".said", "progress", ".easel", ".car"].map((s) =>
      form.querySelector(s));
  const { alpha_bar: alphaBar, shape: [channels, height, width] } = settings;
  for (const canvas of [state, clean, car]) Object.assign(canvas, { width, height });
  for (const [name, values] of Object.entries(settings.choices))
    field[name].replaceChildren(...values.map((value) => new Option(value)));
  field.scale.value = settings.guidance;
  form.querySelector(".more").open = !("compact" in place.dataset);
  let networks, told, stopping;
  form.states = [];

  const say = (text, wrong = false) => {
    said.textContent = text;
    said.classList.toggle("is-wrong", wrong);
    if (wrong) said.scrollIntoView({ block: "nearest" });
  };
  const writePrompt = () => {
    const [colour, body, time] = ["colour", "body", "time"].map((name) => field[name].value);
    const when = time === "night" ? "at night" : "by day";
    field.prompt.value = `${article(colour)} ${colour} ${body} ${when}`;
  };
  const show = (k) => {
    const { t, x, x0 } = form.states[k];
    drawImage(state, x);
    drawImage(clean, x0);
    field.at.value = `t = ${t}`;
    state.setAttribute("aria-label", `the state at t = ${t}`);
    clean.setAttribute("aria-label", `the clean car seen at t = ${t}: ${told}`);
  };
  const noiseOf = (seed) => {
    const draw = gaussians(seed);
    return () => Float32Array.from(draw(channels * height * width));
  };
  const wait = (waiting) => {
    stopping = waiting ? new AbortController() : undefined;
    for (const name of ["draw", "another", "paint", "step"]) field[name].disabled = waiting;
    field.stop.hidden = !waiting;
    form.classList.toggle("is-running", waiting);
  };
  const reach = (part, whole) => Object.assign(progress, { value: part, max: whole });
  const megabytes = (bytes) => Math.round(bytes / 1e6);

  // One thing at a time; what goes wrong is said.
  async function attempt(action) {
    if (stopping || !form.reportValidity()) return;
    wait(true);
    try {
      await action();
    } catch (error) {
      if (stopping.signal.aborted) say(`Stopped ${form.states.length ? `at t = ${form.states.at(-1).t}` : "while loading"}.`);
      else say(error.message, true);
    }
    wait(false);
    field.step.disabled = !form.states.length;
  }

  // Draws a car by the steps that makeStep(denoise, noise) gives, and puts it on the easel.
  async function draw(prompt, [doing, done], makeStep) {
    const [scale, steps] = [field.scale.valueAsNumber, field.steps.valueAsNumber];
    tokenize(prompt, settings); // an unknown word is told before anything is loaded
    form.states = [];
    stage.scrollIntoView({ block: "nearest" }); // on a phone the fields fill the window
    if (!networks) {
      say("Loading the model …");
      reach(0, 1);
      networks = await loadNetworks(stopping.signal, (loaded, total) => {
        reach(loaded, total);
        say(`Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB.`);
      });
      networks.settings = settings;
    }
    told = prompt || "any car";
    field.step.max = steps;
    say(`${doing} ${told} …`);
    reach(0, steps);
    const start = performance.now();
    const noise = noiseOf(field.seed.valueAsNumber);
    const x_T = noise();
    const denoise = await makeDenoiser(networks, prompt, scale);
    const times = spacedTimes(alphaBar.length - 1, steps);
    for await (const reached of sample(denoise, makeStep(denoise, noise), x_T, times)) {
      field.step.value = form.states.push(reached) - 1;
      show(form.states.length - 1);
      reach(form.states.length - 1, steps);
      await new Promise((painted) => setTimeout(painted)); // let the page be painted
      stopping.signal.throwIfAborted();
    }
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    say(`${done} ${told} in ${seconds} s: ${steps} step${steps > 1 ? "s" : ""}, guidance ${scale}.`);
    form.car = form.states.at(-1).x;
    drawImage(car, form.car);
    car.setAttribute("aria-label", `the car to paint over: ${told}`);
    easel.hidden = false;
  }

  async function drawAnew() {
    const prompt = field.prompt.value;
    await draw(prompt, ["Drawing", "Drew"], () => ddim(alphaBar));
    field.wish.value = prompt;
  }

  async function paintOver() {
    const [covered, rounds] = [countOnes(form.mask), field.rounds.valueAsNumber];
    if (!covered)
      throw new Error("The mask is empty: paint on the picture below, or choose a part of it.");
    const where = `over ${covered} pixel${covered > 1 ? "s" : ""} with`;
    const keep = form.mask.map((on) => 1 - on);
    await draw(field.wish.value, [`Painting ${where}`, `Painted ${where}`], (denoise, noise) => {
      const replaced = replacing(alphaBar, ddim(alphaBar), form.car, keep, noise);
      return resampling(alphaBar, replaced, denoise, rounds, noise);
    });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(drawAnew);
  });
  field.another.addEventListener("click", () => {
    field.seed.value = Math.floor(Math.random() * 1e6);
    attempt(drawAnew);
  });
  field.stop.addEventListener("click", () => stopping?.abort());
  field.paint.addEventListener("click", () => attempt(paintOver));
  field.wish.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // it would press Draw
    attempt(paintOver);
  });
  field.step.addEventListener("input", () => show(field.step.valueAsNumber));
  for (const name of Object.keys(settings.choices))
    field[name].addEventListener("input", writePrompt);
  writePrompt();
  openMask(form, width, height);
  place.replaceChildren(form);
  drawImage(state, noiseOf(field.seed.valueAsNumber)()); // no car has been seen in it yet
  if ("compact" in place.dataset) attempt(drawAnew);
}

async function openPlace(place) {
  const tell = (text) => (place.firstElementChild.textContent = text);
  if (location.protocol === "file:")
    return tell(
      "Browsers do not let a page that was opened as a file load a model. Run “make serve” in " +
        "the folder of the book, or “python -m http.server” in the folder of these pages, and " +
        "open the address that it prints; all else in the book works from its files.",
    );
  try {
    openMaker(place, await loadSettings());
  } catch (error) {
    tell(error.message);
  }
}

document.querySelectorAll(".car-maker").forEach(openPlace); // once the page is there: deferred
