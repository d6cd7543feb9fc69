"""`make work`: answers survive an update of the book."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "book"))

from work import copy_chapters


@pytest.fixture
def folders(tmp_path):
    """A book of two chapters, and a reader's copy of it."""
    chapters, work = tmp_path / "chapters", tmp_path / "work"
    (chapters / "checks").mkdir(parents=True)
    for name in ("01_one", "02_two"):
        (chapters / f"{name}.ipynb").write_text(f"{name}, first version")
    (chapters / "checks" / "ch01.py").write_text("first")
    assert copy_chapters(chapters, work) == []
    return chapters, work


def test_copy_has_the_chapters_and_their_checks(folders):
    _, work = folders
    assert (work / "02_two.ipynb").read_text() == "02_two, first version"
    assert (work / "checks" / "ch01.py").read_text() == "first"


def test_update_keeps_answers_and_brings_the_rest(folders):
    chapters, work = folders
    (work / "01_one.ipynb").write_text("my answer")
    for path in (*chapters.glob("*.ipynb"), chapters / "checks" / "ch01.py"):
        path.write_text("second version")
    (chapters / "03_three.ipynb").write_text("new")
    assert copy_chapters(chapters, work) == ["01_one.ipynb"]
    assert (work / "01_one.ipynb").read_text() == "my answer"
    assert (work / "02_two.ipynb").read_text() == "second version"
    assert (work / "03_three.ipynb").read_text() == "new"
    assert (work / "checks" / "ch01.py").read_text() == "second version"


def test_nothing_is_reported_while_the_book_stays(folders):
    chapters, work = folders
    (work / "01_one.ipynb").write_text("my answer")
    assert copy_chapters(chapters, work) == []
    assert (work / "01_one.ipynb").read_text() == "my answer"
