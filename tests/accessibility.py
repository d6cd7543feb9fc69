"""What keeps people out of a page: all that axe-core judges, whatever its weight."""

from axe_playwright_python.base import AXE_SCRIPT

OPTIONS = {
    "resultTypes": ["violations"],
    "preload": False,  # it would load the styles again
    "rules": {  # beside those that are on by default
        rule: {"enabled": True}
        for rule in ("duplicate-id", "duplicate-id-active", "target-size")
    },
}

JUDGE = """async ([context, options]) => {
  const SEEN = ["color", "backgroundColor", "backgroundImage", "fontSize", "fontWeight",
    "opacity", "filter", "mixBlendMode", "textShadow", "position"];
  const numbers = {}, looks = new Map(), alike = [];
  for (const e of document.querySelectorAll("*")) {
    e.removeAttribute("data-judged");
    const style = getComputedStyle(e);
    const key = [looks.get(e.parentElement), ...SEEN.map(name => style[name])].join();
    const look = numbers[key] ??= alike.push([]) - 1;
    looks.set(e, look);
    const texts = [...e.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
    const length = texts.map(text => text.data.trim()).join("").length;
    if (e.checkVisibility({ visibilityProperty: true }))
      alike[look].push({ e, length });
  }
  for (const group of alike)
    for (const { e } of group.sort((a, b) => b.length - a.length).slice(0, 8))
      e.dataset.judged = "";
  axe.configure({ rules: [{ id: "color-contrast", selector: "[data-judged]" }] });
  const { violations } = await axe.run(context, options);
  return violations.map(({ id, nodes }) => [id, nodes[0].html]);
}"""


def findings(page, context: str = "html") -> list[tuple[str, str]]:
    """Each rule of axe-core that a page breaks, with the first place where it does.

    Judged is all that can be seen inside `context`, as it stands: nothing is taken out.
    Every rule judges every element that it applies to, except contrast, whose cost is
    four fifths of the whole. A page has some thousand texts but few looks: colours,
    size and weight of the type, and grounds, as computed for an element and for all
    around it. Of each look axe-core judges the eight longest texts, since of a short
    one, or one that is partly covered, it may not be able to tell.

    Not judged are what is hidden (a closed menu, the search's dialog), and contrast
    where axe-core itself cannot tell: in formulas, whose glyphs are no text, in text
    inside drawings and on pictures, in a text of one character.
    """
    page.evaluate(AXE_SCRIPT)
    return [tuple(found) for found in page.evaluate(JUDGE, [context, OPTIONS])]
