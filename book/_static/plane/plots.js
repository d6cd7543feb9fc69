// What the page draws: a panel of the plane, and the chart of the loss.

import { GRID, gridPoint, WINDOW } from "./run.js";

// The colours of the page's theme, from its style.
export function palette(element) {
  const style = getComputedStyle(element);
  const names = ["data", "sample", "arrow", "glow", "panel"];
  return Object.fromEntries(
    names.map((name) => [name, style.getPropertyValue(`--plane-${name}`).trim()]),
  );
}

// Fits a canvas to its place on the page, for sharp lines; returns its context and its side.
export function fit(canvas) {
  const ratio = Math.min(devicePixelRatio || 1, 2), side = canvas.clientWidth;
  const pixels = Math.round(side * ratio);
  if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [context, side];
}

export function clear(context, side, colours) {
  context.globalAlpha = 1;
  context.fillStyle = colours.panel;
  context.fillRect(0, 0, side, side);
}

const toPage = (side) => (v) => ((v / WINDOW + 1) * side) / 2;

export function drawDots(context, side, points, radius, colour, alpha) {
  const place = toPage(side);
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  context.beginPath();
  for (let i = 0; i < points.length; i += 2) {
    const x = place(points[i]), y = place(-points[i + 1]);
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  context.fill();
}

export function drawData(context, side, points, colours) {
  const few = Math.max(0, 3 - Math.log10(points.length / 2)), size = side / 340;
  drawDots(context, side, points, size * (1.5 + 1.5 * few), colours.data, Math.min(1, 0.4 + 0.3 * few));
}

// The lines of a drawing; a line of one point is a dot.
export function drawLines(context, side, lines, colours) {
  const place = toPage(side);
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: side / 30 });
  context.strokeStyle = colours.data;
  context.globalAlpha = 0.3;
  context.beginPath();
  for (const [[x, y], ...rest] of lines) {
    context.moveTo(place(x), place(-y));
    for (const [x2, y2] of rest.length ? rest : [[x, y]]) context.lineTo(place(x2), place(-y2));
  }
  context.stroke();
}

let tiny; // the glow, a pixel for each arrow, before it is enlarged

function drawGlow(context, side, wrong, colours) {
  tiny ??= Object.assign(document.createElement("canvas"), { width: GRID, height: GRID });
  const small = tiny.getContext("2d");
  small.clearRect(0, 0, GRID, GRID);
  small.fillStyle = colours.glow;
  wrong.forEach((w, k) => {
    if (w < 0.02) return;
    small.globalAlpha = 0.85 * w;
    small.fillRect(k % GRID, GRID - 1 - Math.floor(k / GRID), 1, 1);
  });
  context.globalAlpha = 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(tiny, 0, 0, side, side);
}

// The longest arrow is a cell long; the fainter ones stand where hardly a noisy point falls.
function drawArrows(context, side, { arrows, densities }, colours) {
  const place = toPage(side), cell = side / GRID;
  const peak = densities.reduce((a, b) => Math.max(a, b), 1e-12);
  context.strokeStyle = colours.arrow;
  context.lineWidth = Math.max(1, side / 300);
  context.lineCap = "round";
  for (const [alpha, low, high] of [[0.3, -1, 0.04], [0.6, 0.04, 0.25], [1, 0.25, 2]]) {
    context.globalAlpha = alpha;
    context.beginPath();
    for (let k = 0; k < GRID * GRID; k++) {
      const share = densities[k] / peak;
      if (share <= low || share > high) continue;
      const dx = arrows[2 * k], dy = -arrows[2 * k + 1], d = Math.hypot(dx, dy);
      const length = (0.95 * cell * d) / (d + 0.35), scale = d > 1e-6 ? length / d : 0;
      const x = place(gridPoint(k % GRID)), y = place(-gridPoint(Math.floor(k / GRID)));
      addArrow(context, x, y, scale * dx, scale * dy);
    }
    context.stroke();
  }
}

function addArrow(context, x, y, dx, dy) {
  const [x2, y2] = [x + dx / 2, y + dy / 2], head = 0.32;
  context.moveTo(x - dx / 2, y - dy / 2);
  context.lineTo(x2, y2);
  context.moveTo(x2 - head * (dx + 0.6 * dy), y2 - head * (dy - 0.6 * dx));
  context.lineTo(x2, y2);
  context.lineTo(x2 - head * (dx - 0.6 * dy), y2 - head * (dy + 0.6 * dx));
}

function drawTrails(context, side, { trail, samples }, colours) {
  const place = toPage(side);
  context.strokeStyle = colours.sample;
  context.lineWidth = side / 260;
  [...trail, samples].slice(1).forEach((row, part) => {
    const before = trail[part];
    context.globalAlpha = 0.18 + 0.2 * part;
    context.beginPath();
    for (let i = 0; i < row.length; i += 2) {
      context.moveTo(place(before[i]), place(-before[i + 1]));
      context.lineTo(place(row[i]), place(-row[i + 1]));
    }
    context.stroke();
  });
}

export function drawPanel(canvas, { data, frame, densities, wrong }, colours) {
  const [context, side] = fit(canvas);
  if (!side) return;
  clear(context, side, colours);
  if (wrong) drawGlow(context, side, wrong, colours);
  if (frame) drawArrows(context, side, { arrows: frame.arrows, densities }, colours);
  drawData(context, side, data, colours);
  if (!frame) return;
  drawTrails(context, side, frame, colours);
  drawDots(context, side, frame.samples, Math.max(1.6, side / 170), colours.sample, 0.95);
}

// The chart ---------------------------------------------------------------------------------

const TICKS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5];

const line = (points) => points.map((p) => p.map((v) => v.toFixed(1)).join()).join(" ");

// The loss over the steps, both on logarithmic axes, and the floor below it. `history` holds
// { step, batch, loss } in the order of steps, from step 0 on.
export function lossChart(history, floor, width) {
  const [left, top, bottom] = [44, 12, 26], height = width < 480 ? 150 : 170;
  const right = width - 10, low = floor * 0.85, foot = height - bottom;
  const high = Math.max(1.5 * floor, ...history.map(({ loss }) => loss)) * 1.08;
  const lastStep = Math.max(1000, history.at(-1).step);
  const x = (step) => left + ((right - left) * Math.log(Math.max(step, 1))) / Math.log(lastStep);
  const y = (loss) =>
    top + ((foot - top) * Math.log(high / Math.min(Math.max(loss, low), high))) / Math.log(high / low);
  const ticks = TICKS.filter((v) => v > low && v < high)
    .filter((v, i, all) => y(all[i]) - (i + 1 < all.length ? y(all[i + 1]) : -99) > 14)
    .map((v) => `<path d="M${left} ${y(v)}H${right}" class="grid"/>
      <text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("");
  const steps = [1, 10, 100, 1000, 10000].filter((v) => v < 0.6 * lastStep)
    .map((v) => `<text x="${x(v)}" y="${foot + 16}" text-anchor="middle">${v.toLocaleString("en")}</text>`)
    .join("");
  const batches = history.filter(({ batch }) => batch !== undefined);
  return `<svg role="img" viewBox="0 0 ${width} ${height}" aria-label="The loss over the steps of
    training, above the floor of the exact answer">
    <rect class="band" x="${left}" width="${right - left}" y="${y(1.15 * floor)}"
      height="${y(floor) - y(1.15 * floor)}"/>${ticks}${steps}
    <path class="axis" d="M${left} ${top}V${foot}H${right}"/>
    <path class="floor" d="M${left} ${y(floor)}H${right}"/>
    <polyline class="batch" points="${line(batches.map((p) => [x(p.step), y(p.batch)]))}"/>
    <polyline class="learned" points="${line(history.map((p) => [x(p.step), y(p.loss)]))}"/>
    <circle class="now" r="4" cx="${x(history.at(-1).step)}" cy="${y(history.at(-1).loss)}"/>
    <text class="name" x="${left + 8}" y="${y(1.15 * floor) - 6}">the floor: the loss of the exact answer, ${floor.toFixed(3)}</text>
    <text class="name" x="${right}" y="${foot + 16}" text-anchor="end">${lastStep.toLocaleString("en")} steps</text></svg>`;
}
