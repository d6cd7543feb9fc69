"""What teachers get: notebooks without answers, slides, the graph of the chapters."""

import json
import re
from pathlib import Path

import chapter_graph
import pytest

import handout
import slides

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_handout_keeps_the_exercises_and_no_answer(path):
    whole = json.loads(path.read_text(encoding="utf-8"))
    cells = handout.without_answers(whole)["cells"]

    def tagged(cells, tag):
        return sum(tag in c["metadata"].get("tags", []) for c in cells)

    assert tagged(cells, "solution") == 0 < len(cells)
    assert tagged(cells, "exercise") == tagged(whole["cells"], "exercise")
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    assert not any("<summary>Answer</summary>" in text for text in texts)
    (asks,) = [text for text in texts if text.startswith("## Three questions")]
    assert asks.count("*Your answer:*") == 3
    code = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    assert not re.search(r"\b\w+_solution\b", code), "a solution is used elsewhere"


def test_handout_is_a_folder_that_can_be_given_away(tmp_path):
    source, target = tmp_path / "chapters", tmp_path / "handout"
    (source / "checks" / "__pycache__").mkdir(parents=True)
    (source / "checks" / "ch05.py").write_text("")
    text = "**1.** Why?\n\n<details>\n<summary>Answer</summary>\n\nSo.\n\n</details>\n"
    cell = {"cell_type": "markdown", "metadata": {}, "source": [text]}
    (source / "05.ipynb").write_text(json.dumps({"cells": [cell]}))
    handout.main(source, target)
    names = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    assert names == {"05.ipynb", "checks/ch05.py"}
    (left,) = json.loads((target / "05.ipynb").read_text())["cells"]
    assert "".join(left["source"]) == "**1.** Why?\n\n*Your answer:*"


@pytest.mark.parametrize(
    "path", sorted(slides.SOURCE.glob("*.md")), ids=lambda p: p.stem
)
def test_lecture_shows_the_figures_that_it_names(path):
    text = path.read_text(encoding="utf-8")
    page = slides.lecture(text, "mathjax.js")
    figures = slides.FIGURE.findall(text)
    assert len(figures) >= 5
    assert page.count("<img alt=") == len(figures)
    assert 'alt=""' not in page
    assert page.count("<section>") == text.count("\n---\n") + 1
    assert "$" not in re.sub(r"<img[^>]*>|<script>.*?</script>", "", page, flags=re.S)


def test_slide_without_its_figure_is_refused():
    with pytest.raises(
        ValueError, match="chapter 05 has no figure in a cell 'nowhere'"
    ):
        slides.slide("figure: 05 nowhere")


def test_chapters_build_on_earlier_ones():
    graph = chapter_graph.dependencies(ROOT / "chapters")
    assert len(graph) == 14 and graph["01"] == graph["05"] == set()
    assert all(int(b) < int(a) for a, before in graph.items() for b in before)
    assert {"02", "03"} <= graph["04"]


def test_arrows_leave_out_what_follows_from_others():
    graph = {"1": set(), "2": {"1"}, "3": {"1", "2"}, "4": {"1", "3"}}
    assert chapter_graph.arrows(graph) == [("1", "2"), ("2", "3"), ("3", "4")]
    assert chapter_graph.rows(graph) == [["1"], ["2"], ["3"], ["4"]]
