"""Sphinx extension: lists of the exercises, made from the notebooks.

A chapter's page lists its own where the section with its exercises begins, and says
what their stars mean; the directive `exercise-overview` lists those of all chapters.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from ddpm_core.workshop.exercises import Exercise, exercises_of


def entry(exercise: Exercise, page: str) -> nodes.list_item:
    """One exercise as an item of a list: its title, a link to it, its stars."""
    anchor = nodes.make_id(f"Exercise {exercise.number}: {exercise.title}")
    link = nodes.reference("", exercise.title, internal=True, refuri=f"{page}#{anchor}")
    stars = nodes.inline("", " " + "★" * exercise.stars, classes=["stars"])
    return nodes.list_item("", nodes.paragraph("", "", link, stars))


def legend(overview: str) -> nodes.paragraph:
    """What the stars say, and the way to the page with all exercises."""
    link = nodes.reference("", "All exercises", internal=True, refuri=overview)
    text = "★ a formula put into code, ★★ a thought of your own, ★★★ a derivation. "
    return nodes.paragraph("", text, link, nodes.Text("."), classes=["legend"])


def listed(exercises: list[Exercise], page: str) -> nodes.enumerated_list:
    """Exercises as a numbered list of links; `page` is the way to their chapter."""
    items = [entry(exercise, page) for exercise in exercises]
    return nodes.enumerated_list(
        "", *items, enumtype="arabic", prefix="", suffix=".", classes=["exercises"]
    )


class ExerciseOverview(SphinxDirective):
    """The exercises of all chapters of the book, under the chapters' titles."""

    def run(self) -> list[nodes.Node]:
        """Return a paragraph and a list for each chapter."""
        found = []
        for notebook in sorted(Path(self.env.srcdir).glob("chapters/*.ipynb")):
            page = f"chapters/{notebook.stem}"
            exercises = exercises_of(notebook)
            if not exercises or page not in self.env.found_docs:
                continue
            self.env.note_dependency(str(notebook))
            title = addnodes.pending_xref(
                "", nodes.inline(), refdomain="std", reftype="doc",
                reftarget="/" + page, refdoc=self.env.docname, refexplicit=False,
                refwarn=True,
            )  # fmt: skip
            uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
            found.append(nodes.paragraph("", "", nodes.strong("", "", title)))
            found.append(listed(exercises, uri))
        return found


def list_own(app, doctree) -> None:
    """Begin a chapter's section of exercises with a list of them."""
    notebook = Path(app.env.doc2path(app.env.docname))
    if notebook.suffix != ".ipynb":
        return
    for section in doctree.findall(nodes.section):
        inner = [i for i, part in enumerate(section) if isinstance(part, nodes.section)]
        if section[0].astext() == "Exercises" and inner:
            uri = app.builder.get_relative_uri(app.env.docname, "book/exercises")
            section.insert(inner[0], [listed(exercises_of(notebook), ""), legend(uri)])


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.add_directive("exercise-overview", ExerciseOverview)
    app.connect("doctree-read", list_own)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
