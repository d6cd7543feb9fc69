// The worker: trains in short slices, makes films between them, and listens in between.

import { Run } from "./run.js";

const SLICE = 30; // ms
const LONGEST = 20000; // steps

export function serve(scope) {
  let run, training = false, spent = 0, nextReport = 0, batchLosses = [];
  let films = []; // generators, with the kind and the number of the film that each makes
  let waiting = false;

  const loop = () => {
    waiting = false;
    if (!run) return;
    if (films.length) continueFilm();
    if (training) trainSlice();
    if (films.length || training) schedule();
  };
  const schedule = () => {
    if (!waiting) setTimeout(loop);
    waiting = true;
  };

  function continueFilm() {
    const end = performance.now() + SLICE, { kind, frames, number } = films[0];
    while (performance.now() < end) {
      const { done, value } = frames.next();
      if (!done) continue;
      films.shift();
      scope.postMessage({ type: "film", kind, number, film: value });
      return;
    }
  }

  function trainSlice() {
    const start = performance.now();
    while (performance.now() < start + SLICE && run.step < LONGEST) {
      batchLosses.push(run.train());
      if (run.step >= nextReport) break;
    }
    spent += performance.now() - start;
    if (run.step >= nextReport) report();
    if (run.step >= LONGEST) training = false;
  }

  function report() {
    nextReport = Math.max(run.step + 10, Math.round(1.15 * run.step));
    const batch = batchLosses.reduce((sum, v) => sum + v, 0) / batchLosses.length;
    batchLosses = [];
    scope.postMessage({
      type: "progress",
      step: run.step,
      seconds: spent / 1000,
      batch,
      raw: run.evaluate(false),
      averaged: run.evaluate(true),
      ended: run.step >= LONGEST,
    });
  }

  const answers = {
    // a fresh network; `number` comes back with every film of it
    open({ settings }) {
      run = null;
      films = [];
      training = false;
      [spent, nextReport, batchLosses] = [0, 0, []];
      run = new Run(settings);
      const loss = run.evaluate(false);
      scope.postMessage({ type: "opened", floor: run.floor, loss, alphaBar: run.alphaBar });
    },
    train({ on }) {
      training = on && run !== null;
    },
    // a film takes the place of an unfinished one of its kind
    film({ kind, number, ...sampling }) {
      if (!run) return;
      const frames = kind === "exact" ? run.exactFilm(sampling) : run.learnedFilm(sampling);
      films = [...films.filter((film) => film.kind !== kind), { kind, number, frames }];
    },
  };

  scope.onmessage = ({ data }) => {
    try {
      answers[data.type](data);
    } catch (error) {
      scope.postMessage({ type: "refused", message: error.message });
    }
    schedule();
  };
}
