"""Places in papers, such as the numbers of their equations, and where each was read.

What is known of each place stands in book/paper_places.json, by the paper's key in the
bibliography. `seen`: in a copy of the paper's text, beside its formula or heading.
`quoted`: others name the place, with the formula; who they are. `unseen`: neither, and
what was found instead. The directive `paper-places` prints all of it.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from auto_links import CITATION, cited
from pybtex.database import Entry, parse_file

ROOT = Path(__file__).parents[2]
PLACES = ROOT / "book" / "paper_places.json"
BIBLIOGRAPHY = ROOT / "book" / "references.bib"
MARKS = {"seen": "✓", "quoted": "‡", "unseen": "†"}  # from the best to the worst

LABELS = {
    "DDIM": "song2021ddim", "SDE": "song2021sde",
    "DPM-Solver": "lu2022dpm", "DPM-Solver++": "lu2022dpmpp", "VDM": "ho2022video",
}  # fmt: skip
"""What tells papers apart whose authors and years are the same."""

KIND = (
    r"(?i:\b(?:eqs?\.|equations?|sections?|tables?|algorithms?|propositions?|theorems?|"
    r"lemmas?|appendix))"
)
NUMBER = r"(?:\(\d+\)|(?:\d+|[A-Z])(?:\.\d+)*\b)"
SEVERAL = rf"{NUMBER}(?:(?:,? and |, | to ){NUMBER})*"
RUN = rf"{KIND} {SEVERAL}(?:(?:,? and |, ){KIND} {SEVERAL})*"
LABEL = re.compile(r"(?: \(|, )(?:the )?([A-Z][\w+-]+)(?: paper)?\)?")
AFTER = re.compile(rf"\)?(?:{LABEL.pattern})?,? (?:after |their )?(?P<run>{RUN})")
BEFORE = re.compile(rf"(?P<run>{RUN}) of $")
OTHERS = re.compile(rf"(?<!our )(?<!Our )({RUN})")
ARXIV = re.compile(r"arxiv\.org/abs/([\d.]+\d)")
KEY = re.compile(r"\{cite:t\}`(\w+)`")


def entries() -> dict[str, dict]:
    """Return what is known of each place: entries()["ho2020ddpm"]["seen"]."""
    return json.loads(PLACES.read_text(encoding="utf-8"))


@cache
def papers() -> dict[str, Entry]:
    """Return the entries of the bibliography, by their keys."""
    return parse_file(BIBLIOGRAPHY).entries


def in_run(run: str) -> Iterator[str]:
    """Yield each place of 'eqs. (4) to (6) and table 1', as 'eq. (4)', 'table 1'."""
    kind, last, to = "", 0, False
    for token in re.findall(rf"{KIND}|{NUMBER}|\bto\b", run):
        number = token.strip("()")
        if token == "to":
            to = True
        elif re.fullmatch(KIND, token):
            kind = re.sub(r"^(eqs?\.|equations?)$|s$", "", token.lower()) or "eq."
        else:
            first = last + 1 if to else number
            last = int(number) if number.isdigit() else 0
            for one in range(first, last + 1) if to else [number]:
                yield f"eq. ({one})" if kind == "eq." else f"{kind} {one}"
            to = False


def named(text: str) -> set[tuple[str, str]]:
    """Return the (paper, place)s that a text names by authors, year and place.

    The paper is its key, or its authors and year where the bibliography has no entry,
    or several, for them.
    """
    text = re.sub(r"\s*\n\s*(?:# )?", " ", text).replace("*", "")
    found = set()
    for match in CITATION.finditer(text):
        after = AFTER.match(text, match.end())
        before = BEFORE.search(text, max(0, match.start() - 80), match.start())
        label = LABEL.match(text, match.end())
        keys = cited(match, papers())
        one = keys[0] if len(keys) == 1 else LABELS.get(label and label[1], match[0])
        for run in filter(None, (after, before)):
            found |= {(one, place) for place in in_run(run["run"])}
    return found


def in_sources(text: str) -> set[tuple[str, str]]:
    """Return the (paper, place)s of a chapter's sources; the links name the papers."""
    keys = {entry.fields.get("eprint"): key for key, entry in papers().items()}
    items = re.findall(r"^- .+", text.partition("\n## Sources")[2], re.MULTILINE)
    return {
        (keys[link[1]], place)
        for item in items
        if (link := ARXIV.search(item))
        for run in OTHERS.findall(item[link.end() :])
        for place in in_run(run)
    }


def in_notation(text: str) -> set[tuple[str, str]]:
    """Return the (paper, place)s of the page of symbols; rows go on with a paper."""
    found, key = set(), ""
    for row in re.findall(r"^\|.*\| ([^|]+) \|$", text, re.MULTILINE):
        key = next(iter(KEY.findall(row)), key)
        if not row.startswith("chapter"):
            runs = re.findall(RUN, row)
            found |= {(key, place) for run in runs for place in in_run(run)}
    return found


def everywhere() -> set[tuple[str, str]]:
    """Return the (paper, place)s that library, chapters, notation and ledger name."""
    found = in_notation((ROOT / "book" / "notation.md").read_text(encoding="utf-8"))
    ledger = json.loads((ROOT / "book" / "ledger.json").read_text(encoding="utf-8"))
    sources = [e["source"] for own in ledger.values() for e in own.values()]
    modules = sorted((ROOT / "ddpm_core").rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in modules] + sources
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells]
        found |= in_sources("\n".join(texts[-len(cells) :]))
    return found.union(*map(named, texts))


def state(paper: str, place: str, known: dict) -> str | None:
    """Return 'seen', 'quoted' or 'unseen'; None for a place without an account."""
    own = known.get(paper, {})
    return next((state for state in MARKS if place in own.get(state, ())), None)


def mark(source: str, known: dict | None = None) -> str:
    """Return the mark of a source: that of the worst of its places, '' without any."""
    known = entries() if known is None else known
    states = [state(paper, place, known) for paper, place in named(source)]
    return MARKS[max(states, key=list(MARKS).index)] if states else ""


def faults(found: set[tuple[str, str]], known: dict) -> list[str]:
    """Say which places have no account, and which accounts are of no place."""
    told = {
        (paper, place)
        for paper, own in known.items()
        for state in MARKS
        for place in own.get(state, ())
    }
    missing = [f"{paper}, {place}: was it looked up?" for paper, place in found - told]
    return sorted(
        missing + [f"nothing names {p}, {place}" for p, place in told - found]
    )


# The page -----------------------------------------------------------------------------


def setup(app) -> dict:
    """Register the directive with Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    def link(paper: dict[str, str]) -> nodes.reference:
        title = re.sub(r"[{}]", "", paper["title"])
        return nodes.reference("", f"{title} ({paper['year']})", refuri=paper["url"])

    def account(key: str, own: dict) -> Iterator[str]:
        if own.get("seen"):
            text = f"in the text of arXiv:{papers()[key].fields['eprint']}"
            yield f"{MARKS['seen']} {text}: {', '.join(own['seen'])}."
        for state in ("quoted", "unseen"):
            for place, what in own.get(state, {}).items():
                yield f"{MARKS[state]} {place}: {what}."

    class PaperPlaces(SphinxDirective):
        """`{paper-places}`: the papers, with what was read of the places in them."""

        def run(self) -> list[nodes.Node]:
            for path in (PLACES, BIBLIOGRAPHY):
                self.env.note_dependency(str(path))
            known, items = entries(), nodes.bullet_list()
            counts = {
                state: sum(len(own.get(state, ())) for own in known.values())
                for state in MARKS
            }
            for key, own in known.items():
                text = nodes.Text(f": {' '.join(account(key, own))}")
                line = nodes.paragraph("", "", link(papers()[key].fields), text)
                items += nodes.list_item("", line)
            summary = (
                f"{sum(counts.values())} places in {len(known)} papers: "
                f"{counts['seen']} seen there (✓), {counts['quoted']} quoted by others "
                f"(‡), and {counts['unseen']} not seen (†)."
            )
            return [nodes.paragraph("", summary), items]

    app.add_directive("paper-places", PaperPlaces)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
