// A figure that runs a model, on a page where it is one thing among others: it waits for a
// click before it loads anything.

const STATIC = new URL(".", document.currentScript.src);

const loadInOrder = (names) =>
  names.reduce(
    (before, name) =>
      before.then(() => new Promise((loaded, failed) => {
        const script = Object.assign(document.createElement("script"), { src: new URL(name, STATIC) });
        Object.assign(script, { onload: loaded, onerror: () => failed(new Error(name)) });
        document.head.append(script);
      })),
    Promise.resolve(),
  );

for (const place of document.querySelectorAll(".live")) {
  const button = place.querySelector("button.start");
  button.addEventListener("click", () => {
    const figure = document.createElement("div");
    figure.className = place.dataset.figure;
    figure.dataset.compact = "";
    figure.append(Object.assign(document.createElement("p"), { textContent: "Loading …" }));
    place.replaceChildren(figure);
    loadInOrder(place.dataset.scripts.split(" ")).catch(({ message }) => {
      figure.textContent = `The server does not answer (${message}). Load the page again to retry.`;
    });
  });
}
