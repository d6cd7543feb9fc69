"""Recognises in which form people have their photos."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ddpm_core.datasets.packed import UNLABELLED
from ddpm_core.datasets.photos.files import (
    IMAGE_SUFFIXES,
    Photos,
    Tree,
    class_folders,
    folder_tree,
    printable,
    zip_tree,
)
from ddpm_core.datasets.photos.hub import hub_photos, parquet_photos
from ddpm_core.datasets.photos.stanford import (
    STANFORD_CARS,
    folder_of,
    stanford_cars,
)

FORMS = """\
  Stanford Cars as torchvision has it: cars_train/, cars_test/, devkit/*.mat
  Stanford Cars as Kaggle has it: cars_train/cars_train/, cars_test/cars_test/
  class folders: <class>/*.jpg, or train/<class>/*.jpg and test/<class>/*.jpg
  a flat folder of images
  a zip of any of these
  the hub's parquet files: one, a folder of them, or hub:owner/name"""

ADVICE = {
    ("heic", "heif", "jp2", "psd", "svg"): "convert them to JPEG",
    ("arw", "cr2", "cr3", "dng", "nef"): "convert them to JPEG",
    ("7z", "bz2", "gz", "rar", "tar", "tgz", "xz", "zip"): "unpack them",
}
KINDS_SHOWN = 10


def find_photos(
    source: str | Path, *, labels: bool = True, boxes: bool = False
) -> Photos:
    """Recognise the form of `source` and list its photos, training photos first.

    `labels=False` leaves the labels unread; `boxes=True` reads where the cars are,
    which only Stanford Cars says. Raises FileNotFoundError where there is nothing,
    ValueError where no photos or no boxes are recognised, ImportError where a form
    needs a package that is not installed. Chapter 14.
    """
    if str(source).startswith("hub:"):
        photos = hub_photos(str(source).removeprefix("hub:"))
    else:
        photos = _local_photos(Path(source), labels, boxes)
    if boxes and photos.form != STANFORD_CARS:
        raise ValueError(
            f"boxes are read from the .mat files of {STANFORD_CARS}, and {source} is "
            f"{photos.form}: prepare it without boxes"
        )
    if not labels:
        bare = tuple(replace(photo, label=UNLABELLED) for photo in photos.items)
        photos = replace(photos, items=bare, classes=())
    order = {"train": 0, "validation": 1, "test": 2}
    items = sorted(photos.items, key=lambda photo: order.get(photo.split, 3))
    return replace(
        photos,
        items=tuple(replace(photo, name=printable(photo.name)) for photo in items),
        classes=tuple(map(printable, photos.classes)),
        notes=tuple(map(printable, photos.notes)),
        skipped=tuple((printable(name), why) for name, why in photos.skipped),
    )


def _local_photos(path: Path, labels: bool, boxes: bool) -> Photos:
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}. Looked for:\n{FORMS}")
    if not (path.is_dir() or path.is_file()):
        raise ValueError(f"{path} is neither a folder nor a regular file")
    if path.suffix.lower() == ".parquet" and path.is_file():
        return parquet_photos([path])
    tree = folder_tree(path) if path.is_dir() else zip_tree(path)
    images = tree.with_suffix(IMAGE_SUFFIXES)
    if not images:
        if path.is_dir() and (names := tree.with_suffix([".parquet"])):
            return parquet_photos([path / name for name in names])
        others = [f"{name}: {reason}" for name, reason in tree.skipped[:KINDS_SHOWN]]
        reasons = "; ".join(["holds no photos", *_other_files(tree), *others])
        raise ValueError(printable(f"{path} {reasons}. ") + f"Looked for:\n{FORMS}")
    if any(folder_of(name) for name in images):
        photos = stanford_cars(tree, images, labels=labels, boxes=boxes)
    else:
        photos = class_folders(tree, images)
    skipped = tree.skipped + photos.skipped
    return replace(photos, notes=photos.notes + _other_files(tree), skipped=skipped)


def _other_files(tree: Tree) -> tuple[str, ...]:
    """Say which files were not looked at, as their names are not those of images."""
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in tree.names)
    kinds = [suffix for suffix in suffixes if suffix not in IMAGE_SUFFIXES | {".mat"}]
    kinds.sort(key=lambda kind: (-suffixes[kind], kind))
    shown = [_one_kind(kind, suffixes[kind]) for kind in sorted(kinds[:KINDS_SHOWN])]
    if rest := sum(suffixes[kind] for kind in kinds[KINDS_SHOWN:]):
        shown.append(f"{rest:,} others")
    if tree.hidden:
        shown.append(f"{tree.hidden:,} hidden")
    return (f"not looked at: {', '.join(shown)}",) if shown else ()


def _one_kind(suffix: str, n: int) -> str:
    advice = [text for kinds, text in ADVICE.items() if suffix[1:] in kinds]
    return " ".join(
        [f"{n:,} {suffix[:20] or 'without ending'}", *map("({})".format, advice)]
    )
