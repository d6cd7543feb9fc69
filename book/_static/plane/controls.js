// The controls of the plane: their markup, and their values by name.

const POINTS = [3, 5, 10, 20, 50, 100, 200, 500, 1000];
const STEPS = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100];
const WIDTHS = [4, 8, 16, 32, 64, 96];

const option = (value, name, chosen) =>
  `<option value="${value}"${chosen ? " selected" : ""}>${name}</option>`;

const choice = (name, label, options, hint) =>
  `<label class="plane-control" data-control="${name}"><span>${label}</span>
    <select name="${name}">${options.map(([value, text], i) => option(value, text, i === 0)).join("")}
    </select><small>${hint}</small></label>`;

const slider = (name, label, values, value, hint) =>
  `<label class="plane-control" data-control="${name}"><span>${label} <output name="${name}Is">${value}</output></span>
    <input type="range" name="${name}" min="0" max="${values.length - 1}" value="${values.indexOf(value)}"
      aria-valuetext="${value}"><small>${hint}</small></label>`;

const check = (name, label, checked, hint) =>
  `<label class="plane-control is-check" data-control="${name}"><span><input type="checkbox"
    name="${name}"${checked ? " checked" : ""}> ${label}</span><small>${hint}</small></label>`;

const SHAPE_NAMES = [
  ["moons", "Two moons"], ["spiral", "Spiral"], ["car", "A car"], ["points", "Three points"],
  ["drawn", "Draw your own"],
];

const CONTROLS = [
  choice("target", "The network predicts", [["eps", "the noise ε"], ["x0", "the clean point x₀"],
    ["v", "the velocity v"], ["flow", "the flow ε − x₀"]], "four equivalent targets"),
  choice("schedule", "Schedule", [["linear", "linear"], ["cosine", "cosine"],
    ["sigmoid", "sigmoid"], ["flow", "flow"]], "how fast noise covers the data"),
  slider("points", "Points of data", POINTS, 500, "with few, the exact answer copies them"),
  slider("width", "Width of the network", WIDTHS, 64, "units in each layer"),
  check("timed", "The network is given t", true, "without it, it must guess how noisy a point is"),
  check("averaged", "Averaged weights", true, "steadier than the latest weights"),
  choice("sampler", "Sampler", [["ddim", "DDIM"], ["ancestral", "ancestral (DDPM)"],
    ["dpm-solver++", "DPM-Solver++(2M)"], ["heun", "Heun"]], "how to step from noise to data"),
  slider("steps", "Network calls", STEPS, 20, "fewer are faster and coarser"),
  check("noised", "Show the data noised to t", false, "x<sub>t</sub> = √ᾱ x₀ + √(1 − ᾱ) ε"),
].join("");

export const MARKUP = `
  <fieldset class="plane-shapes"><legend>The data</legend><div>${SHAPE_NAMES.map(([value, name], i) =>
    `<label><input type="radio" name="shape" value="${value}"${i ? "" : " checked"}><span>${name}</span></label>`,
  ).join("")}</div></fieldset>
  <div class="plane-pad" hidden>
    <canvas tabindex="0" role="application" aria-label="Drawing pad. The arrow keys move the pen, Space sets it down or lifts it."></canvas>
    <div><p>Draw with the mouse or a finger. By keyboard: arrow keys move the pen, Space sets it
      down and lifts it.</p>
      <button type="button" name="clear">Clear</button>
      <button type="button" name="use">Use this drawing</button></div>
  </div>
  <div class="plane-stage">
    <div class="plane-panels">
      <figure><figcaption><b>The network</b> <span class="plane-age">untrained</span></figcaption>
        <canvas class="plane-learned" role="img" aria-label="The plane with the data; nothing is learned yet."></canvas><small class="plane-copies"></small></figure>
      <figure><figcaption><b>The exact answer</b> <span>from a formula</span></figcaption>
        <canvas class="plane-exact" role="img" aria-label="The plane with the data."></canvas><small class="plane-copies"></small></figure>
    </div>
    <p class="plane-legend"><span class="is-data">data</span><span class="is-sample">samples</span><span class="is-arrow">from noise towards data, at this t</span><span
      class="is-glow">where the network is wrong</span></p>
    <div class="plane-player"><button type="button" name="play"></button><span>noise</span>
      <input type="range" name="moment" min="0" max="100" value="100" aria-label="moment of the film, from noise to data">
      <span>data</span><output name="at"></output></div>
  </div>
  <div class="plane-training">
    <div class="plane-buttons"><button name="train">Train</button>
      <button type="button" name="again">Start again</button>
      <output name="count">step 0</output></div>
    <div class="plane-chart"></div>
    <p class="plane-verdict"></p>
    <p class="plane-said" role="status"></p>
  </div>
  <fieldset class="plane-controls"><legend>What you can change</legend><div>${CONTROLS}</div></fieldset>
  <details class="plane-more" hidden><summary>More that you can change</summary><div></div></details>
  <details class="plane-help" hidden><summary>What you see</summary>
    <p>Both panels show the same plane, data and noise. Right, each arrow leads from a noisy point
      towards the mean of all data points, weighted by how likely each is to have become it: no
      network can do better. Left, a network learns these arrows from examples. The floor is the
      loss of the exact answer; the band ends 15 % above it. A sample is a copy if one data point
      is three times as close to it as any other; of points scattered at random, one in nine is.</p>
  </details>`;

const LISTS = { points: POINTS, steps: STEPS, width: WIDTHS };

export function valueOf(form, name) {
  const field = form.elements[name];
  if (LISTS[name]) return LISTS[name][field.valueAsNumber];
  return field.type === "checkbox" ? field.checked : field.value;
}

export function setValue(form, name, value) {
  const field = form.elements[name];
  if (LISTS[name]) field.value = LISTS[name].indexOf(Number(value));
  else if (field.type === "checkbox") field.checked = value === true || value === "true";
  else field.value = value;
  showValue(form, name);
}

// Writes the number that a slider stands for.
export function showValue(form, name) {
  if (!LISTS[name]) return;
  form.elements[`${name}Is`].value = valueOf(form, name);
  form.elements[name].setAttribute("aria-valuetext", valueOf(form, name));
}

// The data attributes of the element: settings to begin with, and in `data-controls` the
// controls that stand in front of the others, as in a chapter.
export function applyData(form, { controls, ...settings }) {
  for (const [name, value] of Object.entries(settings))
    if (form.elements[name]) setValue(form, name, value);
  if (!controls) return;
  const front = controls.split(" "), more = form.querySelector(".plane-more");
  for (const control of [...form.querySelectorAll("[data-control]")])
    if (!front.includes(control.dataset.control)) more.querySelector("div").append(control);
  more.hidden = false;
  form.querySelector(".plane-help").hidden = false;
}
