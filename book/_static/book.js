// The widgets ask for formulas as MathJax 2 did; the book has MathJax 3.
addEventListener("load", () => {
  if (!window.MathJax?.startup || MathJax.Hub) return;
  MathJax.Hub = {
    Queue([, , element]) {
      if (/[$\\]/.test(element.textContent))
        MathJax.startup.promise.then(() => MathJax.typesetPromise([element]));
    },
  };
});

// The widgets' script gives neither its play buttons nor its sliders a name that can be read out.
const BUTTONS = { "fa-play": "play", "fa-pause": "pause", "fa-stop": "stop", "fa-retweet": "repeat" };

// Names of the code beside sliders, as the text writes them.
const SYMBOLS = {
  t: "<i>t</i>",
  x0_hat: "<i>x̂</i><sub>0</sub>",
  alpha_bar: "<i>ᾱ</i>",
  sigma: "<i>σ</i>",
  eta: "<i>η</i>",
  beta: "<i>β</i>",
};

function nameControls() {
  for (const icon of document.querySelectorAll(".widget-play button:not([aria-label]) > i")) {
    const known = Object.keys(BUTTONS).find((name) => icon.classList.contains(name));
    if (known) icon.parentElement.setAttribute("aria-label", BUTTONS[known]);
  }
  for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-slider")?.querySelector(".widget-label");
    if (label) handle.setAttribute("aria-label", label.textContent);
  }
  for (const label of document.querySelectorAll(".widget-subarea .widget-label:not([data-named])"))
    if (label.textContent in SYMBOLS) {
      label.dataset.named = label.textContent; // once: what is put in is a change, too
      label.innerHTML = SYMBOLS[label.textContent];
    }
  for (const button of document.querySelectorAll(".widget-subarea .widget-toggle-button")) {
    const pressed = String(button.classList.contains("mod-active"));
    if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
  }
}

// The first page's cars come out of noise once the page is there; a button plays it again, and
// for readers who want less motion for the first time.
function offerToPlay(figure) {
  const button = figure.querySelector("button.play");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let times = 0;
  const play = () => {
    const picture = figure.querySelector("img"), film = picture.cloneNode();
    film.onload = () => figure.querySelector("img").replaceWith(film); // until then the old picture stays
    film.src = `${picture.dataset.film}?${++times}`; // a new address begins at the first frame
  };
  if (still) button.textContent = "Play it";
  else addEventListener("load", () => setTimeout(play, 300));
  button.hidden = false;
  button.onclick = play;
}

// A term of the glossary shows its meaning while it is pointed at or has the focus; Escape
// hides it, and the pointer may rest on it. Under a finger a tap shows it, with the way to the
// glossary, and the next tap elsewhere hides it.
function showMeanings(terms) {
  const tip = document.createElement("div");
  let described, leaving;
  tip.id = "meaning";
  tip.role = "tooltip";
  tip.hidden = true;
  document.body.append(tip);

  const hide = () => {
    clearTimeout(leaving);
    described?.removeAttribute("aria-describedby");
    tip.hidden = true;
  };
  const show = (term) => {
    hide();
    described = term;
    term.setAttribute("aria-describedby", tip.id);
    tip.textContent = term.dataset.meaning;
    tip.hidden = false;
    const word = term.getClientRects()[0], gap = 6;
    const left = Math.min(word.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const fits = word.bottom + gap + tip.offsetHeight <= innerHeight;
    const top = fits ? word.bottom + gap : word.top - gap - tip.offsetHeight;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${top + scrollY}px`;
  };
  const leave = () => (leaving = setTimeout(hide, 250));
  for (const term of terms) {
    term.addEventListener("mouseenter", () => show(term));
    term.addEventListener("focus", () => show(term));
    term.addEventListener("mouseleave", leave);
    term.addEventListener("blur", (event) => event.relatedTarget?.parentElement !== tip && hide());
    term.addEventListener("click", (event) => {
      if (event.pointerType !== "touch") return;
      event.preventDefault();
      show(term);
      const more = Object.assign(document.createElement("a"),
        { href: term.href, textContent: "In the glossary" });
      tip.append(" ", more);
    });
  }
  addEventListener("pointerdown", ({ target }) => target.closest("#meaning, a.term") || hide());
  tip.addEventListener("mouseenter", () => clearTimeout(leaving));
  tip.addEventListener("mouseleave", leave);
  addEventListener("keydown", ({ key }) => key === "Escape" && hide());
}

// What the theme and Sphinx tell a screen reader wrongly, or not at all.
function correctRoles() {
  const correct = (selector, roles) =>
    document.querySelectorAll(selector).forEach((e) => Object.assign(e, roles));
  correct("#pst-primary-sidebar", { role: "navigation", ariaLabel: "Book" }); // has its name
  correct(".citation-list > .citation", { role: "listitem" }); // was an outdated role
  correct("th:has(> p:empty)", { role: "cell" }); // a table's corner, which heads nothing
  correct(".copybtn", { tabIndex: -1 }); // one more stop at each cell, for what Ctrl+C does
}

// A formula that is wider than the page can be reached, and so scrolled, by keyboard.
function letFormulasScroll() {
  const wide = (e) => (e.scrollWidth > e.clientWidth ? (e.tabIndex = 0) : e.removeAttribute("tabindex"));
  const observer = new ResizeObserver((seen) => seen.forEach(({ target }) =>
    [target, ...target.querySelectorAll("mjx-container")].forEach(wide)));
  document.querySelectorAll("div.math").forEach((e) => observer.observe(e));
}

function begin() {
  const terms = document.querySelectorAll("a.term");
  if (terms.length) showMeanings(terms);
  document.querySelectorAll(".out-of-noise").forEach(offerToPlay);
  correctRoles();
  letFormulasScroll();
  if (document.querySelector("script[type='application/vnd.jupyter.widget-view+json']"))
    new MutationObserver(nameControls).observe(document.body,
      { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
}

if (document.readyState === "loading") addEventListener("DOMContentLoaded", begin);
else begin();
