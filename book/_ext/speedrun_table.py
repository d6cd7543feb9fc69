"""The directive `speedrun-table`: the records of `ddpm speedrun`, as they were written.

Each record is a JSON file in data/results/speedrun. Nothing is typed by hand: without
files the page says that there are none.
"""

import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "data" / "results" / "speedrun"
SEEDS = 3  # that a record has
NONE = "No record has been set yet."
HEAD = (
    "| recipe | reference steps | core minutes | Fréchet | given | command, commit, "
    "hardware |"
)


def records(folder: Path = RESULTS) -> list[dict]:
    """What was reached with three seeds comes first, the fastest of it at the top."""
    files = sorted(folder.glob("*.json"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return sorted(found, key=lambda r: (not is_record(r), r["reference steps"]["mean"]))


def is_record(row: dict) -> bool:
    """Whether a run counts: it reached the goal with three seeds."""
    return row["reached"] and len(row["runs"]) >= SEEDS


def rows(found: list[dict]) -> list[str]:
    """The table as Markdown, or one sentence where there is nothing to show."""
    if not found:
        return [NONE]
    return [HEAD, "| --- " * 6 + "|", *map(_row, found)]


def _row(row: dict) -> str:
    what = row["says"] if is_record(row) else f"{row['says']} (no record: {_why(row)})"
    free = ", ".join(f"{name}: {took:g} min" for name, took in row["given"].items())
    made = f"`{row['command']}`, {row['commit']}, {row['hardware']}"
    cells = [
        f"{row['recipe']}: {what}",
        _spread(row["reference steps"], 0),
        _spread(row["core minutes"], 1),
        _spread(row["frechet"], 1),
        free or "nothing",
        made,
    ]
    return f"| {' | '.join(cells)} |"


def _why(row: dict) -> str:
    return "one seed or two" if row["reached"] else f"above {row['goal']:g}"


def _spread(found: dict, digits: int) -> str:
    mean, least, most = (
        f"{found[key]:,.{digits}f}" for key in ("mean", "least", "most")
    )
    return mean if least == most else f"{mean} ({least} to {most})"


class SpeedrunTable(SphinxDirective):
    """`{speedrun-table}`: the table of records."""

    def run(self) -> list[nodes.Node]:
        for path in RESULTS.glob("*.json"):
            self.env.note_dependency(str(path))
        section = nodes.section()
        section.document = self.state.document
        lines = rows(records())
        self.state.nested_parse(StringList(lines, "speedrun table"), 0, section)
        return section.children


def setup(app) -> dict:
    """Register the directive with Sphinx."""
    app.add_directive("speedrun-table", SpeedrunTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
