"""Places in papers: each that the book names has an account of who read it where."""

import paper_places as places
import pytest


def test_every_place_has_an_account():
    found = places.everywhere()
    assert len(found) > 100
    assert places.faults(found, places.entries()) == [], "book/paper_places.json"


def test_an_account_says_what_was_read():
    for paper, own in places.entries().items():
        assert "url" in places.papers()[paper].fields
        assert set(own) <= set(places.MARKS), paper
        assert "seen" not in own or "eprint" in places.papers()[paper].fields
        told = [place for state in own for place in own[state]]
        assert len(told) == len(set(told)) > 0, paper
        assert all(own[s].values() for s in ("quoted", "unseen") if s in own), paper


def test_what_is_missing_and_what_is_too_much_is_told():
    known = {"a": {"seen": ["eq. (1)"], "unseen": {"section 2": "nothing"}}}
    assert places.faults({("a", "eq. (1)"), ("a", "section 2")}, known) == []
    assert places.faults({("a", "eq. (1)"), ("a", "eq. (3)")}, known) == [
        "a, eq. (3): was it looked up?",
        "nothing names a, section 2",
    ]


def test_a_mark_is_that_of_the_worst_place():
    known = {
        "ho2020ddpm": {"seen": ["eq. (6)"], "unseen": {"eq. (7)": "nothing"}},
        "vincent2011": {"quoted": {"section 4.2": "notes"}},
    }
    assert places.mark("Ho et al. 2020, eq. (6)", known) == "✓"
    assert places.mark("Ho et al. 2020, eqs. (6) and (7)", known) == "†"
    assert places.mark("Vincent 2011, section 4.2", known) == "‡"
    assert places.mark("this book", known) == places.mark("Ho et al. 2020", known) == ""


@pytest.mark.parametrize(
    ("text", "paper", "named"),
    [
        ("Ho et al. 2020, eq. (7), for u", "ho2020ddpm", ["eq. (7)"]),
        ("Ho et al.\n    2020, eqs. (6) and (7).", "ho2020ddpm",
         ["eq. (6)", "eq. (7)"]),
        ("Ho et al. 2020, eq. (14),\n    # algorithm 1.", "ho2020ddpm",
         ["algorithm 1", "eq. (14)"]),
        ("equations (4) to (6) of Ho et al. (2020)", "ho2020ddpm",
         ["eq. (4)", "eq. (5)", "eq. (6)"]),
        ("Karras et al. 2022, appendix B.3. No", "karras2022edm", ["appendix B.3"]),
        ("Vincent (2011, section 4.2) found", "vincent2011", ["section 4.2"]),
        ("Higgins et al. (2017, their equation 4):", "higgins2017beta", ["eq. (4)"]),
        ("Song et al. 2021 (DDIM), after eq. (14)", "song2021ddim", ["eq. (14)"]),
        ("equation (13) of Song et al. (2021, the SDE paper)", "song2021sde",
         ["eq. (13)"]),
        ("Lugmayr et\n    al. 2022 (RePaint), eq. (8).", "lugmayr2022repaint",
         ["eq. (8)"]),
        ("Song et al. 2021, eq. (12)", "Song et al. 2021", ["eq. (12)"]),
        ("Nobody 2020, table 1", "Nobody 2020", ["table 1"]),
        ("Ho et al. 2020. Chapter 05, equation (2)", "", []),
    ],
)  # fmt: skip
def test_a_text_names_places(text, paper, named):
    assert sorted(places.named(text)) == [(paper, place) for place in named]


def test_sources_name_places_but_for_our_own():
    item = "- A. B, [c](https://arxiv.org/abs/2006.11239): eq. (4), our equation (2)."
    assert places.in_sources(f"x\n## Sources\n\n{item}\n") == {
        ("ho2020ddpm", "eq. (4)")
    }


def test_rows_of_the_notation_go_on_with_a_paper():
    rows = (
        "| a | {cite:t}`ho2020ddpm`, eq. (1) |\n| b | table 2 |\n| c | chapter 01 |\n"
    )
    assert places.in_notation(rows) == {
        ("ho2020ddpm", "eq. (1)"),
        ("ho2020ddpm", "table 2"),
    }
