// The figure that draws a car in the page, watched step by step: a toy car from words, which can be
// painted over, or a photograph. car-model.js runs the model.

const NUMBERS = `
  <label>steps <input name="steps" type="number" min="1" max="100"></label>
  <label>seed <input name="seed" type="number" min="0" max="999999" value="1"></label>`;

const DRAW = `
  <span class="buttons"><button name="draw">Draw</button>
    <button name="another" type="button">Another</button>
    <button name="stop" type="button" hidden>Stop</button></span>`;

const FROM_WORDS = `
  <legend>A car out of noise</legend>
  <label>colour <select name="colour"></select></label>
  <label>body <select name="body"></select></label>
  <label>light <select name="time"></select></label>
  ${DRAW}
  <details class="more" open><summary>Prompt, guidance, steps, seed</summary>
    <label class="time">prompt <input name="prompt" type="text" autocomplete="off"></label>
    <label>guidance <input name="scale" type="number" min="0" max="10" step="0.5"></label>
    ${NUMBERS}
  </details>`;

const FROM_NOISE = `
  <legend>A photograph out of noise</legend>
  <label>sampler <select name="sampler">
    <option value="ancestral">ancestral</option><option value="ddim">DDIM</option></select></label>
  ${NUMBERS}${DRAW}`;

const STAGE = `
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
  </div>`;

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

// Offers words, of which the prompt is made.
function openWords(form, { choices, guidance }) {
  const field = form.elements;
  const writePrompt = () => {
    const [colour, body, time] = ["colour", "body", "time"].map((name) => field[name].value);
    const when = time === "night" ? "at night" : "by day";
    field.prompt.value = `${article(colour)} ${colour} ${body} ${when}`;
  };
  for (const [name, values] of Object.entries(choices)) {
    field[name].replaceChildren(...values.map((value) => new Option(value)));
    field[name].addEventListener("input", writePrompt);
  }
  field.scale.value = guidance;
  writePrompt();
}

// Puts the form of a model into its place. form.states are those of the last drawing, each with
// the picture that x0 stands for; a finished drawing is told by the event "drawn".
function openMaker(place, name, settings) {
  const { alpha_bar: alphaBar, t_end, prompts, shape, picture, steps, sampler } = settings;
  const compact = "compact" in place.dataset;
  const form = document.createElement("form");
  form.className = "laboratory maker";
  form.innerHTML =
    `<fieldset>${prompts ? FROM_WORDS : FROM_NOISE}</fieldset>${STAGE}${prompts ? EASEL : ""}`;
  const field = form.elements;
  const [stage, state, clean, said, progress] =
    [".stage", ".state", ".clean", ".said", "progress"].map((s) => form.querySelector(s));
  for (const [canvas, [, height, width]] of [[state, shape], [clean, picture]]) {
    Object.assign(canvas, { width, height });
    const share = width / (shape[2] + picture[2]); // a pixel is equally large in both
    canvas.parentElement.style.flexBasis = `${32 * share}rem`;
  }
  field.steps.value = steps; // as the weights' card was measured
  if (field.sampler) field.sampler.value = sampler;
  field.steps.min = t_end ? 2 : 1; // one of them goes from t_end to 0
  let model, told, stopping;
  form.states = [];

  const say = (text, wrong = false) => {
    said.textContent = text;
    said.classList.toggle("is-wrong", wrong);
    if (wrong) said.scrollIntoView({ block: "nearest" });
  };
  const show = (k) => {
    const { t, x, picture } = form.states[k];
    drawImage(state, x);
    drawImage(clean, picture);
    field.at.value = `t = ${t}`;
    state.setAttribute("aria-label", `the state at t = ${t}`);
    clean.setAttribute("aria-label", `the clean car seen at t = ${t}: ${told}`);
  };
  const noiseOf = (seed) => {
    const draw = gaussians(seed);
    return () => Float32Array.from(draw(shape.reduce((product, side) => product * side)));
  };
  const wait = (waiting) => {
    stopping = waiting ? new AbortController() : undefined;
    for (const one of [field.draw, field.another, field.step, field.paint])
      if (one) one.disabled = waiting;
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

  async function load() {
    say("Loading the model …");
    reach(0, 1);
    return loadModel(name, settings, stopping.signal, (loaded, total) => {
      reach(loaded, total);
      say(`Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB.`);
    });
  }

  // Draws by the steps that makeStep(denoise, noise) gives; without words there is no prompt.
  async function draw(prompt, [doing, done], makeStep) {
    const [scale, steps] = [field.scale?.valueAsNumber, field.steps.valueAsNumber];
    if (prompts) tokenize(prompt, prompts); // an unknown word is told before anything is loaded
    form.states = [];
    stage.scrollIntoView({ block: "nearest" }); // on a phone the fields fill the window
    model ??= await load();
    told = prompts ? prompt || "any car" : "a photograph";
    field.step.max = steps;
    say(`${doing} ${told} …`);
    reach(0, steps);
    const start = performance.now();
    const noise = noiseOf(field.seed.valueAsNumber);
    const x_T = noise();
    const denoise = await makeDenoiser(model, prompt, scale);
    const times = spacedTimes(alphaBar.length - 1, steps, t_end);
    for await (const { t, x, x0 } of sample(denoise, makeStep(denoise, noise), x_T, times)) {
      const picture = await decode(model, x0);
      field.step.value = form.states.push({ t, x, x0, picture }) - 1;
      show(form.states.length - 1);
      reach(form.states.length - 1, steps);
      await new Promise((painted) => setTimeout(painted)); // let the page be painted
      stopping.signal.throwIfAborted();
    }
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    const how = `${steps} step${steps > 1 ? "s" : ""}${prompts ? `, guidance ${scale}` : ""}`;
    say(`${done} ${told} in ${seconds} s: ${how}.`);
    form.dispatchEvent(new CustomEvent("drawn", { detail: { prompt, told } }));
  }

  const drawAnew = () => {
    const step = SAMPLERS[field.sampler?.value ?? sampler];
    return draw(field.prompt?.value, ["Drawing", "Drew"], (_, noise) => step(alphaBar, noise));
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(drawAnew);
  });
  field.another.addEventListener("click", () => {
    field.seed.value = Math.floor(Math.random() * 1e6);
    attempt(drawAnew);
  });
  field.stop.addEventListener("click", () => stopping?.abort());
  field.step.addEventListener("input", () => show(field.step.valueAsNumber));
  if (prompts) {
    form.querySelector(".more").open = !compact;
    openWords(form, prompts);
    openEasel(form, settings, attempt, draw);
  }
  place.replaceChildren(form);
  drawImage(state, noiseOf(field.seed.valueAsNumber)()); // no car has been seen in it yet
  if (compact) attempt(drawAnew);
}

async function openPlace(place) {
  const { model: name = "toy-cars-text-32" } = place.dataset;
  const tell = (text) => (place.firstElementChild.textContent = text);
  if (location.protocol === "file:")
    return tell(
      "Browsers do not let a page that was opened as a file load a model. Run “make serve” in " +
        "the folder of the book, or “python -m http.server” in the folder of these pages, and " +
        "open the address that it prints; all else in the book works from its files.",
    );
  try {
    openMaker(place, name, await loadSettings(name));
  } catch (error) {
    tell(error.message);
  }
}

document.querySelectorAll(".car-maker").forEach(openPlace); // once the page is there: deferred
