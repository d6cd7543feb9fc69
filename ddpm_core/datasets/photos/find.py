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
    zip_tree,
)
from ddpm_core.datasets.photos.hub import hub_photos, parquet_photos
from ddpm_core.datasets.photos.stanford import folder_of, stanford_cars

FORMS = """\
  Stanford Cars as torchvision has it: cars_train/, cars_test/, devkit/*.mat
  Stanford Cars as Kaggle has it: cars_train/cars_train/, cars_test/cars_test/
  class folders: <class>/*.jpg, or train/<class>/*.jpg and test/<class>/*.jpg
  a flat folder of images
  a zip of any of these
  the hub's parquet files: one, a folder of them, or hub:owner/name"""


def find_photos(source: str | Path, *, labels: bool = True) -> Photos:
    """Recognise the form of `source` and list its photos, training photos first.

    `labels=False` leaves the labels unread. Raises FileNotFoundError where there is
    nothing, ValueError where no photos are recognised, ImportError where a form needs
    a package that is not installed. Chapter 14.
    """
    if str(source).startswith("hub:"):
        photos = hub_photos(str(source).removeprefix("hub:"))
    else:
        photos = _local_photos(Path(source), labels)
    if not labels:
        bare = tuple(replace(photo, label=UNLABELLED) for photo in photos.items)
        photos = replace(photos, items=bare, classes=())
    order = {"train": 0, "validation": 1, "test": 2}
    items = sorted(photos.items, key=lambda photo: order.get(photo.split, 3))
    return replace(photos, items=tuple(items))


def _local_photos(path: Path, labels: bool) -> Photos:
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}. Looked for:\n{FORMS}")
    if path.suffix.lower() == ".parquet":
        return parquet_photos([path])
    tree = folder_tree(path) if path.is_dir() else zip_tree(path)
    images = tree.with_suffix(IMAGE_SUFFIXES)
    if not images:
        if path.is_dir() and (names := tree.with_suffix([".parquet"])):
            return parquet_photos([path / name for name in names])
        raise ValueError(f"{path} holds no photos. Looked for:\n{FORMS}")
    if any(folder_of(name) for name in images):
        photos = stanford_cars(tree, images, labels=labels)
    else:
        photos = class_folders(tree, images)
    return replace(photos, notes=photos.notes + _other_files(tree))


def _other_files(tree: Tree) -> tuple[str, ...]:
    """Say which files were not looked at, as their names are not those of images."""
    suffixes = Counter(PurePosixPath(name).suffix.lower() for name in tree.names)
    others = sorted(set(suffixes) - IMAGE_SUFFIXES - {".mat"})
    kinds = [f"{suffixes[kind]:,} {kind or 'without ending'}" for kind in others]
    return (f"not looked at: {', '.join(kinds)}",) if kinds else ()
