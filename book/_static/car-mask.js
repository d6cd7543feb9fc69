// The mask that a reader paints over a car, by strokes and by buttons; car-maker.js fills it in.

// In pixels of the toy cars, which all stand in nearly the same place.
const inCar = (x, y) => x >= 1 && x < 31 && y >= 12 && y < 29;
const PARTS = {
  "the sky": (x, y) => y < 12,
  "the background": (x, y) => !inCar(x, y),
  "the car": inCar,
  "its roof": (x, y) => inCar(x, y) && y < 20,
  "its wheels": (x, y) => inCar(x, y) && y >= 22,
  "the left half": (x) => x < 16,
};

function distanceToLine(x, y, [x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const share = ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1);
  const nearest = Math.min(Math.max(share, 0), 1);
  return Math.hypot(x - x1 - nearest * dx, y - y1 - nearest * dy);
}

// Lets the reader choose pixels of the form's easel, by strokes and by buttons; form.mask has
// a 1 for each that is painted over.
function openMask(form, width, height) {
  const field = form.elements;
  const [surface, hatched] = [".easel svg", ".easel .hatched"].map((s) => form.querySelector(s));
  surface.setAttribute("viewBox", `0 0 ${width} ${height}`);
  form.mask = new Uint8Array(width * height);

  const cover = (inside, value) => {
    form.mask = form.mask.map((old, i) =>
      inside(i % width, Math.floor(i / width)) ? value : old);
    const squares = Array.from(form.mask, (on, i) =>
      on ? `M${i % width} ${Math.floor(i / width)}h1v1h-1z` : "");
    hatched.setAttribute("d", squares.join(""));
    field.covered.value = `${countOnes(form.mask)} of ${width * height} pixels are hatched`;
  };
  const brushed = () => Number(!field.erase.checked);

  let last;
  const place = ({ clientX, clientY }) => {
    const box = surface.getBoundingClientRect();
    return [((clientX - box.left) / box.width) * width, ((clientY - box.top) / box.height) * height];
  };
  const stroke = (event) => {
    const [from, to, radius] = [last ?? place(event), place(event), field.brush.valueAsNumber / 2];
    cover((x, y) => distanceToLine(x + 0.5, y + 0.5, from, to) <= radius, brushed());
    last = to;
  };
  surface.addEventListener("pointerdown", (event) => {
    surface.setPointerCapture(event.pointerId);
    stroke(event);
  });
  surface.addEventListener("pointermove", (event) => last && stroke(event));
  for (const end of ["pointerup", "pointercancel"])
    surface.addEventListener(end, () => (last = undefined));

  for (const [name, inside] of Object.entries(PARTS)) {
    const button = Object.assign(document.createElement("button"),
      { type: "button", textContent: name, onclick: () => cover(inside, brushed()) });
    form.querySelector(".parts").append(button);
  }
  field.clear.addEventListener("click", () => cover(() => true, 0));
  cover(() => true, 0);
}

const countOnes = (mask) => mask.reduce((sum, on) => sum + on, 0);
