// The film's clock: it plays from noise to data and rests there, or stands where the reader put it.

const PLAY = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5v11l9-5.5z"/></svg>';
const PAUSE = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 3h3v10H4zM9 3h3v10H9z"/></svg>';
const FLIGHT = 3600, REST = 1600; // ms

export class Player {
  // `changed()` hears when the reader moves the slider.
  constructor(button, slider, changed) {
    Object.assign(this, { button, slider, begun: performance.now() });
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    button.addEventListener("click", () => this.toggle());
    slider.addEventListener("input", () => {
      this.playing = false;
      this.showButton();
      changed();
    });
    this.showButton();
  }

  // From 0, noise, to 1, data.
  moment() {
    if (!this.playing) return this.slider.valueAsNumber / 100;
    return Math.min(1, ((performance.now() - this.begun) % (FLIGHT + REST)) / FLIGHT);
  }

  toggle() {
    const moment = this.moment();
    this.playing = !this.playing;
    this.begun = performance.now() - (moment < 1 ? moment * FLIGHT : 0);
    this.showButton();
  }

  showButton() {
    this.button.innerHTML = this.playing ? PAUSE : PLAY;
    this.button.setAttribute("aria-label", this.playing ? "Pause the film" : "Play the film");
  }

  show(moment, t) {
    if (this.playing) this.slider.value = 100 * moment;
    this.slider.setAttribute("aria-valuetext", `t = ${t}`);
  }
}
