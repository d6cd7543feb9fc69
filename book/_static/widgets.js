// Loads the sliders of a page when the first of them is about to come into sight: their code,
// and the stored states with their pictures, are most of a chapter's bytes.

const WIDGETS = { ...document.currentScript.dataset };
const VIEW = "script[type='application/vnd.jupyter.widget-view+json']";

const loadScript = (address) =>
  new Promise((loaded, failed) => {
    const script = Object.assign(document.createElement("script"), { src: address });
    script.onload = loaded;
    script.onerror = () => failed(new Error(`${address} could not be loaded`));
    document.head.append(script);
  });

// Called by the script with the states, which is none that a browser runs.
function storedWidgets(states) {
  const script = document.createElement("script");
  script.type = "application/vnd.jupyter.widget-state+json";
  script.textContent = JSON.stringify(states);
  document.head.append(script);
}

// The widgets' code draws at the page's event `load`. If that came after ours, it would draw twice.
const pageLoaded = new Promise((resolve) => {
  if (document.readyState === "complete") resolve();
  else addEventListener("load", resolve, { once: true });
});

let widgets;

function loadWidgets() {
  widgets ??= pageLoaded
    .then(() => Promise.all([WIDGETS.states, WIDGETS.code].map(loadScript)))
    .then(() => dispatchEvent(new Event("load")));
  return widgets;
}

const approach = new IntersectionObserver(
  (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    approach.disconnect();
    loadWidgets();
  },
  { rootMargin: "1200px" },
);
for (const view of document.querySelectorAll(VIEW)) approach.observe(view.parentElement);
addEventListener("beforeprint", loadWidgets);
