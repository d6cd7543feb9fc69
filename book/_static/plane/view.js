// The plane on the page: its controls, its panels, and what it asks of the worker.

import { alongLines, SHAPES } from "./datasets.js";
import { copies, frameAt, mixFrames, wrongness } from "./films.js";
import { Pad } from "./pad.js";
import { drawPanel, lossChart, palette } from "./plots.js";
import { gaussians } from "./random.js";
import { T } from "./run.js";
import { scales } from "./schedules.js";

const POINTS = [3, 5, 10, 20, 50, 100, 200, 500, 1000];
const STEPS = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100];
const WIDTHS = [4, 8, 16, 32, 64, 96];
const FLIGHT = 3600, REST = 1600, TWEEN = 450; // ms: a film, its end, the change to a newer one

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
    ["v", "the velocity v"], ["flow", "the flow ε − x₀"]], "four answers, one knowledge"),
  choice("schedule", "Schedule", [["linear", "linear"], ["cosine", "cosine"],
    ["sigmoid", "sigmoid"], ["flow", "flow"]], "how fast the data drowns in noise"),
  slider("points", "Points of data", POINTS, 500, "with few, a perfect model copies them"),
  slider("width", "Width of the network", WIDTHS, 64, "too narrow, and it cannot follow the data"),
  check("timed", "The network is given t", true, "without it, it must guess how much noise there is"),
  check("averaged", "Averaged weights", true, "they tremble less than the latest ones"),
  choice("sampler", "Sampler", [["ddim", "DDIM"], ["ancestral", "ancestral (DDPM)"],
    ["dpm-solver++", "DPM-Solver++(2M)"], ["heun", "Heun"]], "the way from noise to data"),
  slider("steps", "Network calls", STEPS, 20, "few calls are fast, and coarse"),
  check("noised", "Show the data noised to t", false, "x<sub>t</sub> = √ᾱ x₀ + √(1 − ᾱ) ε"),
].join("");

const PLAY = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5v11l9-5.5z"/></svg>';
const PAUSE = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 3h3v10H4zM9 3h3v10H9z"/></svg>';

const MARKUP = `
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
        <canvas class="plane-learned" role="img"></canvas><small class="plane-copies"></small></figure>
      <figure><figcaption><b>The exact answer</b> <span>from a formula</span></figcaption>
        <canvas class="plane-exact" role="img"></canvas><small class="plane-copies"></small></figure>
    </div>
    <p class="plane-legend"><span class="is-data">data</span><span class="is-sample">samples on
      their way</span><span class="is-arrow">the way back, at this t</span><span
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
  <details class="plane-more" hidden><summary>More that you can change</summary><div></div></details>`;

const RETRAIN = ["shape", "target", "schedule", "points", "width", "timed"];
const LISTS = { points: POINTS, steps: STEPS, width: WIDTHS };

const percent = (share) => `${Math.round(100 * share)} %`;

class Plane {
  constructor(place, source) {
    this.form = document.createElement("form");
    this.form.className = "laboratory plane-form";
    this.form.innerHTML = MARKUP;
    this.field = this.form.elements;
    this.find = (selector) => this.form.querySelector(selector);
    this.worker = startWorker(source);
    this.worker.onmessage = ({ data }) => this[`on_${data.type}`](data);
    this.films = {}; // learned, exact: { number, film, before, since }
    this.asked = {}; // learned, exact: the number of the film asked for last, and when
    this.filmNumber = 0;
    this.wanted = false; // should it train, when it is in sight
    this.training = false;
    this.seen = true;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.begun = performance.now();
    this.due = 0; // when the next picture may be drawn
    this.applyData(place.dataset);
    this.pad = new Pad(this.find(".plane-pad canvas"), {
      colours: () => this.colours,
      points: () => this.value("points"),
      changed: () => (this.find("[name=use]").disabled = !this.pad.lines.length),
    });
    place.replaceChildren(this.form);
    this.colours = palette(this.form);
    this.listen();
    this.showPlaying();
    this.open();
    this.loop();
  }

  // Settings -------------------------------------------------------------------------------

  value(name) {
    const field = this.field[name];
    if (LISTS[name]) return LISTS[name][field.valueAsNumber];
    return field.type === "checkbox" ? field.checked : field.value;
  }

  set(name, value) {
    const field = this.field[name];
    if (LISTS[name]) field.value = LISTS[name].indexOf(Number(value));
    else if (field.type === "checkbox") field.checked = value === true || value === "true";
    else field.value = value;
    this.showValue(name);
  }

  showValue(name) {
    if (!LISTS[name]) return;
    this.field[`${name}Is`].value = this.value(name);
    this.field[name].setAttribute("aria-valuetext", this.value(name));
  }

  // The element's data attributes: settings to begin with, and in `data-controls` the controls
  // that stand in front of the others.
  applyData({ controls, ...settings }) {
    for (const [name, value] of Object.entries(settings)) if (this.field[name]) this.set(name, value);
    if (!controls) return;
    const wanted = controls.split(" ");
    const more = this.find(".plane-more"), rest = more.querySelector("div");
    for (const control of [...this.form.querySelectorAll("[data-control]")])
      if (!wanted.includes(control.dataset.control)) rest.append(control);
    more.hidden = false;
  }

  sampling() {
    return {
      sampler: this.value("sampler"), steps: this.value("steps"), averaged: this.value("averaged"),
    };
  }

  makeData() {
    const shape = this.value("shape"), n = this.value("points");
    return shape === "drawn" ? alongLines(this.drawn, n, 0) : SHAPES[shape](n, 0);
  }

  // The worker -----------------------------------------------------------------------------

  post(message) {
    this.worker.postMessage(message);
  }

  // A fresh network on these settings.
  open() {
    this.data = this.makeData();
    this.noise = gaussians(4)(this.data.length);
    this.history = [];
    this.reached = false;
    this.refused = false;
    this.step = 0;
    this.find("[name=count]").value = "step 0";
    this.find(".plane-age").textContent = "untrained";
    const [schedule, target, width, timed] =
      ["schedule", "target", "width", "timed"].map((name) => this.value(name));
    this.post({ type: "open", settings: { data: this.data, schedule, target, width, timed } });
    this.requestFilms();
    this.applyTraining();
  }

  requestFilm(kind) {
    clearTimeout(this.nextFilm);
    const number = ++this.filmNumber;
    this.asked[kind] = { number, at: performance.now() };
    this.post({ type: "film", kind, number, ...this.sampling() });
  }

  requestFilms() {
    this.requestFilm("exact");
    this.requestFilm("learned");
  }

  applyTraining() {
    const on = this.wanted && this.seen && !this.refused;
    this.post({ type: "train", on });
    this.training = on;
    this.find("[name=train]").textContent = this.wanted ? "Pause" : this.step ? "Train on" : "Train";
    if (on) this.requestSoon(0);
  }

  // Films take at most a fifth of the worker's time while it trains.
  requestSoon(took) {
    clearTimeout(this.nextFilm);
    this.nextFilm = setTimeout(() => this.requestFilm("learned"), Math.max(500, 4 * took));
  }

  on_opened({ floor, loss, alphaBar }) {
    Object.assign(this, { floor, alphaBar });
    this.history = [{ step: 0, loss, raw: loss, averaged: loss }];
    this.showLoss();
    this.say("");
  }

  on_refused({ message }) {
    this.refused = true;
    this.wanted = false;
    this.floor = null;
    this.films = {};
    this.find(".plane-chart").replaceChildren();
    this.find(".plane-verdict").textContent = "";
    this.applyTraining();
    this.say(message, true);
  }

  on_progress({ type, seconds, ended, ...progress }) {
    if (!this.history.length || progress.step <= this.step) return; // of a run that is over
    this.step = progress.step;
    this.history.push(progress);
    const count = `step ${progress.step.toLocaleString("en")}, ${seconds.toFixed(1)} s`;
    this.find("[name=count]").value = count;
    this.find(".plane-age").textContent = `after ${progress.step.toLocaleString("en")} steps`;
    this.showLoss();
    if (!ended) return;
    this.wanted = false;
    this.applyTraining();
    this.say(`Stopped after ${progress.step.toLocaleString("en")} steps.`);
  }

  on_film({ kind, number, film }) {
    if (number !== this.asked[kind].number) return;
    const before = this.films[kind]?.film;
    const alike = before && before.times.length === film.times.length;
    this.films[kind] = { number, film, before: alike ? before : null, since: performance.now() };
    this.changed = true;
    this.showCopies(kind, film);
    if (kind === "learned" && this.training)
      this.requestSoon(performance.now() - this.asked.learned.at);
  }

  // What is said ----------------------------------------------------------------------------

  say(text, wrong = false) {
    const said = this.find(".plane-said");
    said.textContent = text;
    said.classList.toggle("is-wrong", wrong);
  }

  showLoss() {
    const which = this.value("averaged") ? "averaged" : "raw";
    const history = this.history.map((p) => ({ ...p, loss: p[which] }));
    const chart = this.find(".plane-chart");
    chart.innerHTML = lossChart(history, this.floor, Math.max(chart.clientWidth, 280));
    const { step, loss } = history.at(-1), above = loss / this.floor - 1;
    this.ratio = loss / this.floor;
    this.find(".plane-verdict").innerHTML = step
      ? `Loss ${loss.toFixed(3)}: <b>${percent(above)} above the floor</b>.`
      : "The floor is the loss of the exact answer: no network can have less on this data.";
    if (step && above < 0.15 && !this.reached) {
      this.reached = true;
      this.say(`Within 15 % of the floor after ${step.toLocaleString("en")} steps.`);
    }
  }

  showCopies(kind, film) {
    const element = this.find(`.plane-${kind} + .plane-copies`);
    element.textContent = `${percent(copies(film.samples.at(-1), this.data))} of its samples are copies`;
    const what = kind === "learned" ? "what the network has learned" : "the exact answer";
    this.find(`.plane-${kind}`).setAttribute(
      "aria-label",
      `The plane with ${this.data.length / 2} points of data, arrows for ${what}, and samples: ` +
        element.textContent,
    );
  }

  showPlaying() {
    const button = this.find("[name=play]");
    button.innerHTML = this.playing ? PAUSE : PLAY;
    button.setAttribute("aria-label", this.playing ? "Pause the film" : "Play the film");
  }

  // The film --------------------------------------------------------------------------------

  moment() {
    if (!this.playing) return this.field.moment.valueAsNumber / 100;
    const passed = (performance.now() - this.begun) % (FLIGHT + REST);
    return Math.min(1, passed / FLIGHT);
  }

  frame(kind, moment) {
    const shown = this.films[kind];
    if (!shown) return null;
    const at = (film) => frameAt(film, moment * (film.times.length - 1));
    const u = (performance.now() - shown.since) / TWEEN;
    if (u >= 1 || !shown.before) return at(shown.film);
    this.changed = true; // until it is at rest
    return mixFrames(at(shown.before), at(shown.film), u * u * (3 - 2 * u));
  }

  shownData(t) {
    if (!this.value("noised") || !this.alphaBar) return this.data;
    const [a, s] = scales(this.alphaBar, t);
    return this.data.map((v, i) => a * v + s * this.noise[i]);
  }

  draw(moment) {
    this.changed = false;
    const exact = this.frame("exact", moment), learned = this.frame("learned", moment);
    const t = exact ? exact.t : T, data = this.shownData(t);
    const densities = exact?.densities;
    drawPanel(this.find(".plane-exact"), { data, frame: exact, densities }, this.colours);
    const both = exact && learned;
    const wrong = both ? wrongness(learned, exact, scales(this.alphaBar, Math.max(t, 1))[1]) : null;
    drawPanel(this.find(".plane-learned"), { data, frame: both ? learned : null, densities, wrong },
      this.colours);
    this.field.at.value = `t = ${t}`;
    const bar = this.field.moment;
    if (this.playing) bar.value = 100 * moment;
    bar.setAttribute("aria-valuetext", `t = ${t}`);
  }

  loop() {
    cancelAnimationFrame(this.request);
    if (!this.seen || !this.form.isConnected) return;
    const now = performance.now(), moment = this.moment();
    if (now >= this.due && (this.changed || moment !== this.lastMoment)) {
      this.draw(moment);
      this.lastMoment = moment;
      this.due = now + Math.max(30, 4 * (performance.now() - now)); // a quarter of the thread
    }
    this.request = requestAnimationFrame(() => this.loop());
  }

  // What the reader does --------------------------------------------------------------------

  listen() {
    const { form } = this;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.toggleTraining();
    });
    form.addEventListener("input", ({ target }) => this.change(target.name));
    const press = (name, action) => this.find(`[name=${name}]`).addEventListener("click", action);
    press("again", () => this.open());
    press("play", () => this.togglePlaying());
    press("clear", () => this.pad.clear());
    press("use", () => this.useDrawing());
    new IntersectionObserver(([entry]) => this.look(entry.isIntersecting)).observe(form);
    document.addEventListener("visibilitychange", () => this.look(!document.hidden));
    new ResizeObserver(() => this.resize()).observe(form);
    new MutationObserver(() => {
      this.colours = palette(form);
      this.pad.draw();
      this.changed = true;
    }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  change(name) {
    if (name === "moment") return this.scrub();
    this.showValue(name);
    if (name === "shape") return this.changeShape();
    if (RETRAIN.includes(name)) {
      if (this.value("shape") === "drawn" && !this.drawn) this.pad.draw();
      else this.open();
    } else if (name === "noised") this.changed = true;
    else if (name === "averaged") this.requestFilm("learned");
    else this.requestFilms();
    if (name === "averaged" && this.floor) this.showLoss();
  }

  changeShape() {
    const shape = this.value("shape"), points = this.value("points");
    this.showPad(shape === "drawn");
    if (shape === "drawn") return;
    if (shape === "points") this.set("points", 3);
    else if (points === 3) this.set("points", 500);
    this.open();
  }

  showPad(on) {
    this.find(".plane-pad").hidden = !on;
    this.find(".plane-stage").hidden = on;
    this.find("[name=use]").disabled = !this.pad.lines.length;
    if (!on) return;
    if (this.value("points") === 3) this.set("points", 500);
    this.wanted = false;
    this.applyTraining();
    this.pad.draw();
  }

  useDrawing() {
    if (!this.pad.lines.length) return false;
    this.drawn = structuredClone(this.pad.lines);
    this.showPad(false);
    this.open();
    return true;
  }

  toggleTraining() {
    if (!this.find(".plane-pad").hidden && !this.useDrawing())
      return this.say("Draw something first.", true);
    if (this.refused) return;
    this.wanted = !this.wanted;
    this.applyTraining();
  }

  togglePlaying() {
    const moment = this.moment();
    this.playing = !this.playing;
    this.begun = performance.now() - (moment < 1 ? moment * FLIGHT : 0);
    this.showPlaying();
  }

  scrub() {
    this.playing = false;
    this.showPlaying();
    this.changed = true;
  }

  look(seen) {
    if (seen === this.seen) return;
    this.seen = seen;
    this.applyTraining();
    this.loop();
  }

  resize() {
    this.changed = true;
    this.pad.draw();
    if (this.floor) this.showLoss();
  }

  // Settings from elsewhere on the page, as { points: 5, shape: "moons" }.
  apply(settings) {
    for (const [name, value] of Object.entries(settings)) this.set(name, value);
    this.showPad(false);
    this.open();
    this.wanted = true;
    this.applyTraining();
  }
}

// A worker made of the script itself: one that is named by an address does not start where a
// page was opened as a file.
function startWorker(source) {
  return new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
}

export function openPlane(place, source) {
  return new Plane(place, source);
}
