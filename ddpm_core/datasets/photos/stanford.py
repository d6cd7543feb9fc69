"""Stanford Cars (Krause et al. 2013) as torchvision or Kaggle lay it out."""

import io
import unicodedata
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ddpm_core.datasets.packed import UNLABELLED
from ddpm_core.datasets.photos.files import Box, Photo, Photos, Tree

SPLIT_OF = {"cars_train": "train", "cars_test": "test", "car_ims": ""}
"""The folders of photos; car_ims holds both splits under numbers of its own."""

ANNOTATIONS = {
    "cars_train": "cars_train_annos",
    "cars_test": "cars_test_annos_withlabels",
    "car_ims": "cars_annos",
}
"""Which .mat file holds the labels of a folder."""

BOXES = {**ANNOTATIONS, "cars_test": "cars_test_annos"}
"""Which .mat file holds the boxes of a folder, where there is none with labels."""

EDGES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
"""The first and the last column and row of a box, counted from 1."""

MAX_CLASSES = 10_000  # a damaged file may name any number
STANFORD_CARS = "Stanford Cars"  # how the form is called


class Fact(NamedTuple):
    """What a .mat file says about a photo."""

    label: int
    split: str
    box: Box | None = None


Known = dict[tuple[str, str], Fact]  # of (folder, file)


def folder_of(name: str) -> str | None:
    """Return the folder of the original that a photo lies in, however deep."""
    folders = PurePosixPath(name).parts[:-1]
    return next((f for f in reversed(folders) if f in SPLIT_OF), None)


def stanford_cars(
    tree: Tree, images: list[str], *, labels: bool, boxes: bool = False
) -> Photos:
    """List the photos of cars_train, cars_test and car_ims, labels from .mat files.

    The folders may lie anywhere in the tree, doubled as in cars_train/cars_train too.
    Raises ImportError where labels or boxes are wanted and scipy is not installed,
    ValueError where boxes are wanted and a folder has no .mat file.
    """
    folders = {name: folder for name in images if (folder := folder_of(name))}
    notes = []
    if outside := len(images) - len(folders):
        notes.append(f"left out: {outside:,} images outside of {', '.join(SPLIT_OF)}")
    known, classes = {}, ()
    if labels or boxes:
        found = sorted(set(folders.values()))
        known, classes, label_notes = _read_facts(tree, found, labels, boxes)
        notes += label_notes
    items = []
    for name, folder in folders.items():
        key = folder, _file_name(name)
        fact = known.pop(key, Fact(UNLABELLED, SPLIT_OF[folder]))
        items.append(Photo(name, partial(tree.read, name), *fact))
    if known:
        notes.append(f"missing: {len(known):,} photos that the .mat files list")
    return Photos(STANFORD_CARS, tuple(items), classes, tuple(notes))


def _read_facts(
    tree: Tree, folders: list[str], labels: bool, boxes: bool
) -> tuple[Known, tuple[str, ...], list[str]]:
    """Return what is known of the photos, the names of the classes, and notes."""
    # Kaggle has files such as 'cars_test_annos_withlabels (1).mat'.
    mats = {
        PurePosixPath(name).stem.strip().split(" ")[0]: name
        for name in tree.with_suffix([".mat"])
    }
    known, names, notes, unknown = {}, [], [], 0
    for folder in folders:
        stem, labelled = ANNOTATIONS[folder], labels
        if labels and stem not in mats:
            notes.append(f"no labels for {folder}: there is no {stem}.mat")
            if "cars_annos" in mats:
                notes[-1] += " (cars_annos.mat is about the photos of car_ims)"
        if stem not in mats and boxes:
            stem, labelled = BOXES[folder], False
        if stem in mats:
            mat = _load_mat(tree, mats[stem])
            facts = _annotations(mat, folder, mats[stem], labelled, boxes)
            unknown += labelled and sum(f.label == UNLABELLED for f in facts.values())
            known |= facts
            names = names or _class_names(mat)
        elif boxes:
            raise ValueError(
                f"there are no boxes for {folder}: {stem}.mat is missing; add it, or "
                "prepare the photos without boxes"
            )
    if not labels:
        return known, (), notes
    if known and "cars_meta" in mats:
        names = _class_names(_load_mat(tree, mats["cars_meta"]))
    if unknown:
        notes.append(
            f"no label: {unknown:,} photos whose class is not a number from 1 to "
            f"{MAX_CLASSES:,}"
        )
    n_classes = 1 + max((fact.label for fact in known.values()), default=-1)
    names += [f"class {number}" for number in range(len(names) + 1, n_classes + 1)]
    return known, tuple(names), notes


def _class_names(mat: dict[str, Any]) -> list[str]:
    return [str(name) for name in np.ravel(mat.get("class_names", []))]


def _annotations(
    mat: dict[str, Any], folder: str, name: str, labels: bool, boxes: bool
) -> Known:
    known = {}
    file_field = "relative_im_path" if folder == "car_ims" else "fname"
    rows = np.ravel(mat.get("annotations", []))
    fields = {file_field} | ({"test"} if folder == "car_ims" else set())
    fields |= ({"class"} if labels else set()) | (set(EDGES) if boxes else set())
    if missing := sorted(fields - set(rows.dtype.names or ())):
        raise ValueError(
            f"{name} is not the .mat file of Stanford Cars, as its annotations have no "
            f"{', '.join(missing)}: fetch it again, or prepare the photos without "
            + ("boxes" if set(missing) <= set(EDGES) else "labels")
        )
    for row in rows:
        split = SPLIT_OF[folder]
        if folder == "car_ims":
            split = "test" if row["test"] else "train"
        label = _label(row["class"]) if labels else UNLABELLED
        box = _box(row) if boxes else None
        known[folder, _file_name(str(row[file_field]))] = Fact(label, split, box)
    return known


def _box(row: Any) -> Box | None:
    """The box of a photo, counted from 0; None for what are no four numbers."""
    try:
        x1, y1, x2, y2 = (int(row[edge]) for edge in EDGES)
    except (TypeError, ValueError, OverflowError):
        return None
    return x1 - 1, y1 - 1, x2, y2


def _label(number: Any) -> int:
    """Count from 0 where the original counts from 1."""
    try:
        label = int(number) - 1
    except (TypeError, ValueError, OverflowError):
        return UNLABELLED
    return label if 0 <= label < MAX_CLASSES else UNLABELLED


def _file_name(path: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(path).name)


def _load_mat(tree: Tree, name: str) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"the labels are in {name}, and scipy, which reads it, is not installed: "
            "`pip install scipy`, or prepare the photos without labels"
        ) from error
    try:
        wanted = ["annotations", "class_names"]
        data = io.BytesIO(tree.read(name))
        return loadmat(data, squeeze_me=True, variable_names=wanted)
    except Exception as error:  # scipy raises of many kinds for a damaged file
        raise ValueError(
            f"{name} is not readable ({error}): fetch it again, or prepare the photos "
            "without labels"
        ) from error
