// Distributions in the plane: each is a function (n, seed) -> n points in about [-2, 2].

import { gaussians, uniforms } from "./random.js";

// n points: where place(uniform, i) says, plus Gaussian noise of that spread.
function scatter(n, seed, place, spread) {
  const uniform = uniforms(seed), gaussian = gaussians(seed + 1);
  const points = new Float64Array(2 * n);
  for (let i = 0; i < n; i++) {
    const [dx, dy] = gaussian(2), [x, y] = place(uniform, i);
    points[2 * i] = x + spread * dx;
    points[2 * i + 1] = y + spread * dy;
  }
  return points;
}

const twoMoons = (n, seed) =>
  scatter(n, seed, (uniform, i) => {
    const angle = Math.PI * uniform(), side = i % 2 ? 1 : -1;
    return [side * (1.1 * Math.cos(angle) - 0.55), side * (1.1 * Math.sin(angle) - 0.3)];
  }, 0.08);

const spiral = (n, seed) =>
  scatter(n, seed, (uniform) => {
    const u = Math.sqrt(0.02 + 0.98 * uniform()), angle = 3.2 * Math.PI * u;
    return [1.7 * u * Math.cos(angle), 1.7 * u * Math.sin(angle)];
  }, 0.05);

const CORNERS = [[0, 1.25], [-1.25, -0.85], [1.25, -0.85]];

// Three points, or three clouds of more.
const threePoints = (n, seed) =>
  scatter(n, seed, (uniform, i) => CORNERS[i % 3], n > 3 ? 0.12 : 0);

// The sedan of ddpm_core.datasets.toy_car_drawing as lines: outline, windows, wheels.
const OUTLINE = [[0.0, 0.0], [0, 0.14], [0.02, 0.185], [0.18, 0.2], [0.29, 0.33], [0.36, 0.355],
  [0.56, 0.355], [0.63, 0.335], [0.75, 0.205], [0.93, 0.175], [0.99, 0.14], [1, 0.05], [0.99, 0],
  [0, 0]];
const WINDOWS = [
  [[0.225, 0.205], [0.315, 0.318], [0.435, 0.325], [0.435, 0.205], [0.225, 0.205]],
  [[0.465, 0.205], [0.465, 0.325], [0.575, 0.322], [0.695, 0.205], [0.465, 0.205]],
];
const wheel = (u) =>
  Array.from({ length: 25 }, (_, i) => {
    const angle = (2 * Math.PI * i) / 24;
    return [u + 0.088 * Math.cos(angle), 0.088 * Math.sin(angle)];
  });
const CAR = [OUTLINE, ...WINDOWS, wheel(0.2), wheel(0.8)].map((line) =>
  line.map(([u, v]) => [3.4 * (u - 0.5), 3.4 * (v - 0.14)]),
);

const car = (n, seed) => alongLines(CAR, n, seed, 0.02);

export const SHAPES = { moons: twoMoons, spiral, car, points: threePoints };

// n points, evenly spread over the length of these lines; a line of one point counts as a dot.
export function alongLines(lines, n, seed, spread = 0.04) {
  const pieces = lines.flatMap((line) =>
    line.length === 1 ? [[line[0], line[0]]] : line.slice(1).map((end, i) => [line[i], end]),
  );
  const ends = [];
  for (const [[x, y], [x2, y2]] of pieces)
    ends.push((ends.at(-1) ?? 0) + Math.max(Math.hypot(x2 - x, y2 - y), 0.02));
  const place = (uniform) => {
    const at = uniform() * ends.at(-1), k = ends.findIndex((end) => at < end);
    const [[x, y], [x2, y2]] = pieces[k], u = uniform();
    return [x + u * (x2 - x), y + u * (y2 - y)];
  };
  return scatter(n, seed, place, spread);
}
