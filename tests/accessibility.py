"""What keeps people out of a page: all that axe-core judges, whatever its weight."""

from axe_playwright_python.base import AXE_SCRIPT

COMMON = {
    "resultTypes": ["violations", "incomplete"],
    "elementRef": True,
    "preload": False,  # it would load the styles again
}
OPTIONS = COMMON | {
    "rules": {  # beside those that are on by default
        rule: {"enabled": True}
        for rule in ("duplicate-id", "duplicate-id-active", "target-size")
    },
}

# The rules whose answer depends on the theme, for looks that were not judged before.
OF_COLOURS = COMMON | {"runOnly": ["color-contrast", "link-in-text-block"]}

JUDGE = """async ([context, options, judged]) => {
  const TYPE = ["color", "fontSize", "fontWeight", "textShadow"];
  const GROUND = { backgroundColor: "rgba(0, 0, 0, 0)", backgroundImage: "none",
    opacity: "1", filter: "none", mixBlendMode: "normal", position: "static" };
  const hash = text => {
    let h = 2166136261n;
    for (const c of new TextEncoder().encode(text))
      h = BigInt.asUintN(64, (h ^ BigInt(c)) * 1099511628211n);
    return h.toString(36);
  };
  const names = {}, grounds = new Map(), looks = new Map(), alike = {}, links = {};
  const name = (...parts) => names[parts.join()] ??= hash(parts.join());
  const own = e => [...e.childNodes].filter(n => n.nodeType === Node.TEXT_NODE)
    .map(text => text.data.trim()).join("").length;
  const seen = e =>
    e.closest(context) && e.checkVisibility({ visibilityProperty: true });
  const unseen = "mjx-assistive-mml, mjx-assistive-mml *, head *";
  for (const e of document.querySelectorAll(`:not(${unseen})`)) {
    delete e.dataset.judged;
    delete e.dataset.judgedLink;
    const style = getComputedStyle(e);
    const changes = Object.entries(GROUND).some(([key, plain]) => style[key] !== plain);
    const around = grounds.get(e.parentElement);
    const ground = changes
      ? name(around, ...Object.keys(GROUND).map(key => style[key])) : around;
    grounds.set(e, ground);
    const look = name(ground, ...TYPE.map(key => style[key]));
    looks.set(e, look);
    const length = own(e);
    if (length > 1 && seen(e)) (alike[look] ??= []).push({ e, length });
    if (e.matches("a[href]") && seen(e)) {
      let block = e.parentElement;
      while (getComputedStyle(block).display === "inline") block = block.parentElement;
      const lines = [style.textDecorationLine, style.borderBottomStyle];
      const link = name(looks.get(block), look, ...lines);
      (links[link] ??= []).push({ e, length: own(e.parentElement) });
    }
  }
  const choose = (groups, mark) => {
    for (const [look, group] of Object.entries(groups)) {
      if (judged.includes(look)) continue;
      group.sort((a, b) => b.length - a.length);
      for (const { e } of group.slice(0, 8)) e.dataset[mark] = look;
    }
  };
  choose(alike, "judged");
  choose(links, "judgedLink");
  const marked = [...document.querySelectorAll("[data-judged], [data-judged-link]")];
  if (options.runOnly && !marked.length) return [[], []];
  axe.configure({ rules: [
    { id: "color-contrast", selector: "[data-judged]" },
    { id: "link-in-text-block", selector: "[data-judged-link]" },
  ] });
  const { violations, incomplete } = await axe.run(context, options);
  const unsure = new Set(incomplete.flatMap(rule => rule.nodes.map(n => n.element)));
  const decided = marked.filter(e => !unsure.has(e))
    .flatMap(e => [e.dataset.judged, e.dataset.judgedLink]).filter(Boolean);
  return [violations.map(({ id, nodes }) => [id, nodes[0].html]), decided];
}"""


def findings(
    page, context: str = "html", options: dict = OPTIONS, judged: set[str] | None = None
) -> list[tuple[str, str]]:
    """Each rule of axe-core that a page breaks, with the first place where it does.

    Judged is all that can be seen inside `context`, as it stands: nothing is taken out.
    Every rule judges every element that it applies to, except two that cost most of
    the time: contrast, and links that a text hides. A page has some thousand texts but
    few looks: colour, size and weight of the type, and the grounds that its element and
    all around it put behind the text. Of each look axe-core judges the eight longest
    texts, since of a short one, or one that is partly covered, it may not be able to
    tell; and of each look of links, together with that of the block around them, the
    eight with the most text beside them. Pages share one `judged`: the looks that
    axe-core has decided on.

    Not judged are what is hidden (a closed menu, the search's dialog, what MathJax says
    to those who cannot see), and contrast where axe-core itself cannot tell: in
    formulas, whose glyphs are no text, in text inside drawings and on pictures, in a
    text of one character.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    judged = set() if judged is None else judged
    found, decided = page.evaluate(JUDGE, [context, options, list(judged)])
    judged.update(decided)
    return [tuple(rule) for rule in found]
