// The schedule laboratory of chapter 05: schedules computed and a car noised in the page itself.
// Its formulas are those of ddpm_core.schedules, in the same order; a test compares the numbers.

const linspace = (start, end, n) =>
  Array.from({ length: n }, (_, i) => start + ((end - start) * i) / (n - 1));

const fromBeta = (beta) => {
  const alphaBar = [1];
  for (const b of beta) alphaBar.push(alphaBar.at(-1) * (1 - b));
  return alphaBar;
};

const fromCurve = (f, maxBeta = 0.999) =>
  fromBeta(f.slice(1).map((v, i) => Math.min(1 - v / f[i], maxBeta)));

const FAMILIES = {
  linear: ({ T, betaStart, betaEnd }) => fromBeta(linspace(betaStart, betaEnd, T)),
  cosine: ({ T }) =>
    fromCurve(
      linspace(0, 1, T + 1).map((u) => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2),
    ),
  sigmoid: ({ T }) => {
    const s = linspace(-3, 3, T + 1).map((x) => 1 / (1 + Math.exp(-x)));
    return fromCurve(s.map((v) => (s.at(-1) - v) / (s.at(-1) - s[0])));
  },
};

const rescaleToZero = (alphaBar) => {
  const root = alphaBar.map(Math.sqrt);
  const [first, last] = [root[1], root.at(-1)];
  return root.map((r, t) => (t ? (((r - last) * first) / (first - last)) ** 2 : 1));
};

const computeAlphaBar = (settings) => {
  const alphaBar = FAMILIES[settings.family](settings);
  return settings.zeroSnr ? rescaleToZero(alphaBar) : alphaBar;
};

const decibels = (ab) => 10 * Math.log10(ab / (1 - ab));

// Noise ------------------------------------------------------------------------------------

function drawNoised(canvas, clean, eps, alphaBar) {
  const [a, s] = [Math.sqrt(alphaBar), Math.sqrt(1 - alphaBar)];
  const picture = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < clean.length; i++)
    picture.data[i] = i % 4 === 3 ? 255 : (a * clean[i] + s * eps[i] + 1) * 127.5;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// Curves -----------------------------------------------------------------------------------

const signed = (v) => String(+v.toPrecision(3)).replace("-", "−").replace("Infinity", "∞");

function chart(title, values, t, [low, high], kind) {
  const [width, height, left, top] = [300, 76, 36, 18];
  const last = values.length - 1;
  const point = (time) => {
    const share = (Math.min(Math.max(values[time], low), high) - low) / (high - low);
    return [left + (width * time) / last, top + height * (1 - share)];
  };
  const times = linspace(0, last, Math.min(last, 150) + 1).map(Math.round);
  const line = times.map((time) => point(time).map((v) => v.toFixed(1)).join()).join(" ");
  const [x, y] = point(t);
  const ticks = [high, (low + high) / 2, low]
    .map((v, i) => `<text x="${left - 4}" y="${top + 4 + (i * height) / 2}" text-anchor="end">${signed(v)}</text>`)
    .join("");
  return `<svg role="img" aria-label="${title} over t" viewBox="0 0 346 114" font-size="10"
    fill="currentColor"><text x="${left}" y="11">${title}</text>${ticks}
    <path d="M${left} ${top}H${left + width}M${left} ${top + height / 2}H${left + width}"
      stroke="currentColor" opacity=".2"/>
    <path d="M${left} ${top}V${top + height}H${left + width}" fill="none" stroke="currentColor"
      opacity=".6"/>
    <polyline class="${kind}" points="${line}" fill="none" stroke-width="2"/>
    <circle class="${kind}" cx="${x}" cy="${y}" r="4.5"/>
    <text x="${left}" y="${top + height + 13}" text-anchor="middle">0</text>
    <text x="${left + width}" y="${top + height + 13}" text-anchor="end">T = ${last}</text></svg>`;
}

// The figure -------------------------------------------------------------------------------

const FIELDS = `
  <fieldset>
    <legend>Schedule laboratory</legend>
    <label>schedule <select name="family">
      <option>linear</option><option selected>cosine</option><option>sigmoid</option>
    </select></label>
    <label>T <input name="T" type="number" min="2" max="4000" value="1000"></label>
    <label class="of-linear">β at 1 <input name="betaStart" type="number" step="any"
      value="0.0001"></label>
    <label class="of-linear">β at T <input name="betaEnd" type="number" step="any"
      value="0.02"></label>
    <label><input name="zeroSnr" type="checkbox"> rescaled to SNR 0 at T</label>
    <label class="time">t <input name="t" type="range" min="0" max="1000" value="300"></label>
    <p class="said" role="status"></p>
  </fieldset>
  <div class="shown"><canvas width="32" height="32" role="img"></canvas><div class="curves">
  </div></div>`;

function readSettings(form) {
  const settings = {
    family: form.elements.family.value,
    zeroSnr: form.elements.zeroSnr.checked,
    ...Object.fromEntries(
      ["T", "betaStart", "betaEnd"].map((name) => [name, form.elements[name].valueAsNumber]),
    ),
  };
  const { T, betaStart, betaEnd, family } = settings;
  if (!(Number.isInteger(T) && T >= 2 && T <= 4000))
    return [null, "T must be a whole number from 2 to 4000."];
  if (family === "linear" && !(0 < betaStart && betaStart <= betaEnd && betaEnd < 1))
    return [null, "0 < β at 1 ≤ β at T < 1 is needed."];
  return [settings, ""];
}

function openLaboratory(place, clean) {
  const form = document.createElement("form");
  form.className = "laboratory";
  form.innerHTML = FIELDS;
  form.addEventListener("submit", (event) => event.preventDefault());
  const eps = gaussians(5)(clean.length);
  const [canvas, curves, said] = ["canvas", ".curves", ".said"].map((s) => form.querySelector(s));

  function redraw() {
    const [settings, complaint] = readSettings(form);
    form.classList.toggle("is-linear", form.elements.family.value === "linear");
    said.classList.toggle("is-wrong", !settings);
    if (!settings) {
      said.textContent = complaint;
      return;
    }
    const alphaBar = computeAlphaBar(settings);
    const slider = form.elements.t;
    if (Number(slider.max) !== settings.T) { // the same place in a schedule of another length
      const t = Math.round((slider.valueAsNumber / slider.max) * settings.T);
      Object.assign(slider, { max: settings.T });
      slider.value = t;
    }
    const t = slider.valueAsNumber;
    const beta = alphaBar.map((ab, i) => (i ? 1 - ab / alphaBar[i - 1] : 0));
    const snr = alphaBar.map(decibels);
    const words = `t = ${t} of ${settings.T}: ᾱ = ${alphaBar[t].toFixed(4)}, ` +
      `SNR ${signed(snr[t])} dB; at T ᾱ = ${alphaBar.at(-1).toExponential(2).replace("-", "−")}`;
    said.textContent = words;
    canvas.setAttribute("aria-label", `A van, noised to ${words}`);
    drawNoised(canvas, clean, eps, alphaBar[t]);
    curves.innerHTML =
      chart("ᾱ, the share of signal", alphaBar, t, [0, 1], "signal") +
      chart("SNR in dB", snr, t, [-90, 50], "ratio") +
      chart("β of each step, up to 0.1", beta, t, [0, 0.1], "step");
    form.alphaBar = alphaBar;
  }

  form.addEventListener("input", redraw);
  place.replaceChildren(form);
  redraw();
}

const laboratory = document.querySelector(".schedule-laboratory");
if (laboratory) {
  const car = new Image();
  car.addEventListener("load", () => {
    const canvas = new OffscreenCanvas(car.width, car.height).getContext("2d");
    canvas.drawImage(car, 0, 0);
    const bytes = canvas.getImageData(0, 0, car.width, car.height).data;
    openLaboratory(laboratory, Float64Array.from(bytes, (v) => v / 127.5 - 1));
  });
  car.src = LABORATORY_CAR;
}
