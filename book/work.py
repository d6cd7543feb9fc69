"""Copies the chapters into work/, where a reader's answers are safe: make work.

git does not see that folder, so that an update of the book meets no conflict. Called
again, it brings new chapters and those that the reader has not changed; the others stay
as they are, and it names those of which there is a newer version.
"""

import hashlib
import json
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ".copied.json"  # the hash of each chapter as it was copied


def sha256(path: Path) -> str:
    """Return the hash of a file, '' where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def copy_chapters(chapters: Path, work: Path) -> list[str]:
    """Copy what the reader has not changed; return the chapters that stay behind.

    The checks are no answers: they are always those of the book.
    """
    work.mkdir(exist_ok=True)
    record = work / COPIED
    copied = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    behind = []
    for chapter in sorted(chapters.glob("*.ipynb")):
        mine, new = work / chapter.name, sha256(chapter)
        if sha256(mine) in ("", copied.get(chapter.name)):
            shutil.copyfile(chapter, mine)
            copied[chapter.name] = new
        elif copied.get(chapter.name) != new:
            behind.append(chapter.name)
    shutil.copytree(chapters / "checks", work / "checks", dirs_exist_ok=True)
    record.write_text(json.dumps(copied, indent=1), encoding="utf-8")
    return behind


if __name__ == "__main__":
    behind = copy_chapters(ROOT / "chapters", ROOT / "work")
    for name in behind:
        print(f"work/{name} has changes of yours and stays; chapters/{name} is newer.")
    print("Your copy of the chapters is in work/: .venv/bin/jupyter lab work")
