"""`ddpm exercises`: how far a reader has come."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ddpm_core.workshop.exercises import FAILED, MARKS, SECONDS, answers, graded


def exercises(
    chapter: Annotated[str, typer.Argument(help="'05' for that chapter; or all")] = "",
    chapters: Annotated[
        Path | None,
        typer.Option(help="folder of the notebooks: work, chapters, or this one"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object an exercise, a line each")
    ] = False,
    submissions: Annotated[
        Path | None,
        typer.Option(help="grade a course: a folder with one of notebooks for each"),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, max=1e6, help="stop an answer after so many, with --submissions"
        ),
    ] = SECONDS,
) -> None:
    """Show how far you have come: run the checks of the exercises in the notebooks.

    It reads the notebooks as they were last saved, and runs their answers.
    """
    if chapters is None:
        there = filter(Path.is_dir, (Path("work"), Path("chapters")))
        chapters = next(there, Path())
    if submissions is None:
        found = answers(chapters, chapter)
    else:
        found = graded(submissions, chapters, chapter, seconds)
    place, count = None, dict.fromkeys(MARKS, 0)
    for got in found:
        exercise = got.exercise
        if as_json:
            typer.echo(json.dumps(got.to_dict()))
            continue
        if place != (place := f"{got.submission} {exercise.notebook.stem}".strip()):
            typer.echo(place)
        count[got.status] += 1
        line = f"  [{MARKS[got.status]}] {exercise.number} {exercise.title}"
        typer.echo(f"{line}: {got.message}" if got.status == FAILED else line)
    if not as_json:
        counts = (f"{n} {status} [{MARKS[status]}]" for status, n in count.items())
        typer.echo(", ".join(counts))
