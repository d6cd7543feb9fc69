// The drawing pad: lines by mouse, finger or keyboard, as lists of points of the plane.

import { alongLines } from "./datasets.js";
import { clear, drawData, drawDots, drawLines, fit } from "./plots.js";
import { WINDOW } from "./run.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STRIDE = 0.1;

const inside = (v) => Math.min(Math.max(v, -WINDOW + 0.2), WINDOW - 0.2);

// `points()` is how many points the drawing gives, `changed()` hears of each new line.
export class Pad {
  constructor(canvas, { colours, points, changed }) {
    Object.assign(this, { canvas, colours, points, changed });
    this.lines = [];
    this.cursor = [0, 0];
    this.penDown = false;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, () => this.end());
    canvas.addEventListener("keydown", (event) => this.press(event));
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.draw());
  }

  data() {
    return alongLines(this.lines, this.points(), 0);
  }

  placeOf({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const across = (clientX - box.left) / box.width, down = (clientY - box.top) / box.height;
    return [inside((2 * across - 1) * WINDOW), inside((1 - 2 * down) * WINDOW)];
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.drawing = true;
    this.penDown = false;
    this.cursor = this.placeOf(event);
    this.lines.push([this.cursor]);
    this.draw();
  }

  move(event) {
    if (!this.drawing) return;
    const place = this.placeOf(event), [x, y] = this.cursor;
    if (Math.hypot(place[0] - x, place[1] - y) < 0.04) return;
    this.cursor = place;
    this.lines.at(-1).push(place);
    this.draw();
  }

  end() {
    if (!this.drawing) return;
    this.drawing = false;
    this.draw();
    this.changed();
  }

  // Arrows move the pen, Space sets it down or lifts it.
  press(event) {
    if (event.key === " ") {
      this.penDown = !this.penDown;
      if (this.penDown) this.lines.push([this.cursor]);
    } else if (KEYS[event.key]) {
      this.cursor = this.cursor.map((v, i) => inside(v + STRIDE * KEYS[event.key][i]));
      if (this.penDown) this.lines.at(-1).push(this.cursor);
    } else return;
    event.preventDefault();
    this.draw();
    this.changed();
  }

  clear() {
    this.lines = [];
    this.penDown = false;
    this.draw();
    this.changed();
  }

  draw() {
    const [context, side] = fit(this.canvas), colours = this.colours();
    if (!side) return;
    clear(context, side, colours);
    drawLines(context, side, this.lines, colours);
    const lifted = !this.drawing && !this.penDown;
    if (this.lines.length && lifted) drawData(context, side, this.data(), colours);
    if (document.activeElement !== this.canvas) return;
    const radius = this.penDown ? 7 : 4;
    drawDots(context, side, this.cursor, radius, colours.sample, this.penDown ? 1 : 0.6);
  }
}
