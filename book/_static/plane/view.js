// The plane on the page: its controls, its panels, and what it asks of the worker.

import { applyData, MARKUP, setValue, showValue, valueOf } from "./controls.js";
import { alongLines, SHAPES } from "./datasets.js";
import { copies, frameAt, mixFrames, wrongness } from "./films.js";
import { Pad } from "./pad.js";
import { Player } from "./player.js";
import { drawPanel, lossChart, palette } from "./plots.js";
import { gaussians } from "./random.js";
import { T } from "./run.js";
import { scales } from "./schedules.js";

const TWEEN = 450; // ms, the change from a film to a newer one
const RETRAIN = ["shape", "target", "schedule", "points", "width", "timed"];

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
    this.worker.onerror = ({ message }) => this.say(`The training stopped: ${message}`, true);
    this.films = {}; // learned, exact: { number, film, before, since }
    this.asked = {}; // learned, exact: the number of the film asked for last, and when
    this.filmNumber = 0;
    this.wanted = false; // should it train, when it is in sight
    this.training = false;
    this.inView = this.seen = true;
    this.due = 0; // when the next picture may be drawn
    applyData(this.form, place.dataset);
    this.player = new Player(this.find("[name=play]"), this.field.moment, () => (this.changed = true));
    this.pad = new Pad(this.find(".plane-pad canvas"), {
      colours: () => this.colours,
      points: () => this.value("points"),
      changed: () => (this.find("[name=use]").disabled = !this.pad.lines.length),
    });
    place.replaceChildren(this.form);
    this.colours = palette(this.form);
    this.listen();
    this.open();
    this.loop();
  }

  // Settings -------------------------------------------------------------------------------

  value(name) {
    return valueOf(this.form, name);
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
    this.floor = null; // until the worker says it
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
    else if (this.step) this.requestFilm("learned"); // of the weights where it stopped
  }

  // While it trains, films take a fifth of the worker's time, or more if it is slow.
  requestSoon(took) {
    clearTimeout(this.nextFilm);
    const pause = Math.min(Math.max(500, 4 * took), 2000);
    this.nextFilm = setTimeout(() => this.requestFilm("learned"), pause);
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
    element.textContent = `copies: ${percent(copies(film.samples.at(-1), this.data))} of samples`;
    const what = kind === "learned" ? "what the network has learned" : "the exact answer";
    this.find(`.plane-${kind}`).setAttribute(
      "aria-label",
      `The plane with ${this.data.length / 2} points of data, arrows for ${what}, and samples: ` +
        element.textContent,
    );
  }

  // The film --------------------------------------------------------------------------------

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
    this.player.show(moment, t);
  }

  loop() {
    cancelAnimationFrame(this.request);
    if (!this.seen || !this.form.isConnected) return;
    const now = performance.now(), moment = this.player.moment();
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
    press("again", () => (this.find(".plane-pad").hidden ? this.open() : this.pad.clear()));
    press("clear", () => this.pad.clear());
    press("use", () => this.useDrawing());
    new IntersectionObserver((entries) => {
      this.inView = entries.at(-1).isIntersecting;
      this.look();
    }).observe(form);
    document.addEventListener("visibilitychange", () => this.look());
    new ResizeObserver(() => this.resize()).observe(form);
    new MutationObserver(() => {
      this.colours = palette(form);
      this.pad.draw();
      this.changed = true;
    }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  change(name) {
    if (name === "moment") return;
    showValue(this.form, name);
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
    if (shape === "points") setValue(this.form, "points", 3);
    else if (points === 3) setValue(this.form, "points", 500);
    this.open();
  }

  showPad(on) {
    this.find(".plane-pad").hidden = !on;
    this.find(".plane-stage").hidden = on;
    this.find("[name=use]").disabled = !this.pad.lines.length;
    if (!on) return;
    if (this.value("points") === 3) setValue(this.form, "points", 500);
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

  // Out of sight, nothing is trained and nothing drawn.
  look() {
    const seen = this.inView && !document.hidden;
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
    for (const [name, value] of Object.entries(settings)) setValue(this.form, name, value);
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
