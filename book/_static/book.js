// Runs before the theme's scripts: Font Awesome would replace the <i> of the widgets' play
// buttons, whose script then fails and takes every slider of the page with it.
window.FontAwesomeConfig = { autoReplaceSvg: false };

// The widgets ask for formulas as MathJax 2 did; the book has MathJax 3.
addEventListener("load", () => {
  if (!window.MathJax || MathJax.Hub) return;
  MathJax.Hub = {
    Queue([, , element]) {
      if (/[$\\]/.test(element.textContent))
        MathJax.startup.promise.then(() => MathJax.typesetPromise([element]));
    },
  };
});
