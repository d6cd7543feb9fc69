// The easel, on which a reader paints over a part of the car that was drawn: the mask, by strokes
// and by buttons, and what is drawn in its place.

const EASEL = `
  <fieldset class="easel" hidden>
    <legend>Paint over a part of it</legend>
    <div class="picture"><canvas class="car" role="img"></canvas><svg aria-hidden="true">
      <pattern id="hatch" width="1.6" height="1.6" patternUnits="userSpaceOnUse"
        patternTransform="rotate(45)"><path d="M0 0h1.6v1.6h-1.6z" fill="#fff" opacity=".55"/>
        <path d="M0 0h.25v1.6h-.25z" fill="#000"/></pattern>
      <path class="hatched" fill="url(#hatch)"/></svg></div>
    <div class="tools">
      <p>Paint on the picture, or choose parts of it. What is hatched will be drawn anew from
        the new prompt; the rest stays.</p>
      <div class="parts" role="group" aria-label="parts to paint over"></div>
      <label>brush <input name="brush" type="range" min="2" max="12" value="5"></label>
      <label><input name="erase" type="checkbox"> erase instead</label>
      <button name="clear" type="button">Clear the mask</button>
      <output name="covered"></output>
      <label class="time">new prompt <input name="wish" type="text" autocomplete="off"></label>
      <label>rounds <input name="rounds" type="number" min="1" max="10" value="1"></label>
      <button name="paint" type="button">Paint over</button>
    </div>
  </fieldset>`;

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

// Puts each car that was drawn on the easel, as form.car, and paints over it with a maker's
// attempt and draw.
function openEasel(form, { alpha_bar: alphaBar, shape: [, height, width] }, attempt, draw) {
  const field = form.elements;
  const [easel, canvas] = [".easel", ".car"].map((s) => form.querySelector(s));
  Object.assign(canvas, { width, height });
  openMask(form, width, height);

  form.addEventListener("drawn", ({ detail: { prompt, told } }) => {
    form.car = form.states.at(-1).x;
    drawImage(canvas, form.car);
    canvas.setAttribute("aria-label", `the car to paint over: ${told}`);
    field.wish.value = prompt;
    easel.hidden = false;
  });

  async function paintOver() {
    const [covered, rounds] = [countOnes(form.mask), field.rounds.valueAsNumber];
    if (!covered)
      throw new Error("The mask is empty: paint on the picture below, or choose a part of it.");
    const where = `over ${covered} pixel${covered > 1 ? "s" : ""} with`;
    const keep = form.mask.map((on) => 1 - on);
    await draw(field.wish.value, [`Painting ${where}`, `Painted ${where}`], (denoise, noise) => {
      const replaced = replacing(alphaBar, ddim(alphaBar), form.car, keep, noise);
      return resampling(alphaBar, replaced, denoise, rounds, noise);
    });
  }

  field.paint.addEventListener("click", () => attempt(paintOver));
  field.wish.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // it would press Draw
    attempt(paintOver);
  });
}
