// What a page with the plane loads at first: a still picture and a button. The plane itself is
// fetched when the button is pressed or, with data-open="sight", when its place comes into sight.

{
  const here = document.currentScript;
  const script = new URL(`../${here.dataset.script}`, here.src);
  let loaded;

  const load = () =>
    (loaded ??= new Promise((resolve, reject) => {
      const element = Object.assign(document.createElement("script"), { src: script });
      element.onload = () => resolve(window.plane);
      element.onerror = () => reject(new Error("its script could not be loaded"));
      document.head.append(element);
    }));

  const open = async (place) => {
    try {
      const plane = await load();
      place.plane ??= plane.open(place);
    } catch (error) {
      place.querySelector("p").textContent = `The plane does not start: ${error.message}.`;
    }
  };

  // Two moons at five levels of noise, from noise to data.
  const picture = () => {
    let seed = 9;
    const uniform = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    const dots = [0, 1, 2, 3, 4].map((k) => {
      const a = k / 4, s = Math.sqrt(1 - a * a);
      return Array.from({ length: 110 }, (_, i) => {
        const angle = Math.PI * uniform(), side = i % 2 ? 1 : -1;
        const [r, turn] = [Math.sqrt(-2 * Math.log(uniform())), 2 * Math.PI * uniform()];
        const x = a * side * (1.1 * Math.cos(angle) - 0.55) + (s + 0.08) * r * Math.cos(turn);
        const y = a * side * (0.3 - 1.1 * Math.sin(angle)) + (s + 0.08) * r * Math.sin(turn);
        return `<circle cx="${(64 + 128 * k + 26 * x).toFixed(1)}" cy="${(64 + 26 * y).toFixed(1)}" r="1.7"/>`;
      }).join("");
    });
    return `<svg viewBox="0 0 640 128" aria-hidden="true">${dots.join("")}</svg>`;
  };

  const poster = (place) => {
    place.innerHTML = `<div class="laboratory plane-poster">${picture()}
      <p>A diffusion model that trains here, in your browser, while you watch.</p>
      <button type="button">Open the plane</button></div>`;
    place.querySelector("button").addEventListener("click", () => open(place));
    if (place.dataset.open !== "sight") return;
    new IntersectionObserver(([entry], observer) => {
      if (!entry.isIntersecting) return;
      observer.disconnect();
      open(place);
    }).observe(place);
  };

  document.querySelectorAll(".plane").forEach(poster);

  // Buttons that set the page's plane up for an experiment.
  document.querySelectorAll("button[data-plane]").forEach((button) => {
    button.addEventListener("click", async () => {
      const place = document.querySelector(".plane");
      await open(place);
      place.plane?.apply(JSON.parse(button.dataset.plane));
      place.scrollIntoView({ block: "start" });
    });
  });
}
