"""Stanford Cars (Krause et al. 2013) as torchvision or Kaggle lay it out."""

import io
import unicodedata
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ddpm_core.datasets.packed import UNLABELLED
from ddpm_core.datasets.photos.files import Photo, Photos, Tree

SPLIT_OF = {"cars_train": "train", "cars_test": "test", "car_ims": ""}
"""The folders of photos; car_ims holds both splits under numbers of its own."""

ANNOTATIONS = {
    "cars_train": "cars_train_annos",
    "cars_test": "cars_test_annos_withlabels",
    "car_ims": "cars_annos",
}
"""Which .mat file holds the labels of a folder."""

MAX_CLASSES = 10_000  # a damaged file may name any number

Known = dict[tuple[str, str], tuple[int, str]]  # (folder, file) -> (label, split)


def folder_of(name: str) -> str | None:
    """Return the folder of the original that a photo lies in, however deep."""
    folders = PurePosixPath(name).parts[:-1]
    return next((f for f in reversed(folders) if f in SPLIT_OF), None)


def stanford_cars(tree: Tree, images: list[str], *, labels: bool) -> Photos:
    """List the photos of cars_train, cars_test and car_ims, labels from .mat files.

    The folders may lie anywhere in the tree, doubled as in cars_train/cars_train too.
    Raises ImportError where labels are wanted and scipy is not installed.
    """
    folders = {name: folder for name in images if (folder := folder_of(name))}
    notes = []
    if outside := len(images) - len(folders):
        notes.append(f"left out: {outside:,} images outside of {', '.join(SPLIT_OF)}")
    known, classes = {}, ()
    if labels:
        known, classes, label_notes = _read_labels(tree, sorted(set(folders.values())))
        notes += label_notes
    items = []
    for name, folder in folders.items():
        key = folder, _file_name(name)
        label, split = known.pop(key, (UNLABELLED, SPLIT_OF[folder]))
        items.append(Photo(name, partial(tree.read, name), label, split))
    if known:
        notes.append(f"missing: {len(known):,} photos that the .mat files tell of")
    return Photos("Stanford Cars", tuple(items), classes, tuple(notes))


def _read_labels(
    tree: Tree, folders: list[str]
) -> tuple[Known, tuple[str, ...], list[str]]:
    """Return what is known of the photos, the names of the classes, and notes."""
    # Kaggle has files such as 'cars_test_annos_withlabels (1).mat'.
    mats = {
        PurePosixPath(name).stem.strip().split(" ")[0]: name
        for name in tree.with_suffix([".mat"])
    }
    known, names, notes = {}, [], []
    for folder in folders:
        stem = ANNOTATIONS[folder]
        if stem in mats:
            mat = _load_mat(tree, mats[stem])
            known |= _annotations(mat, folder, mats[stem])
            names = names or _class_names(mat)
        else:
            notes.append(f"no labels for {folder}: there is no {stem}.mat")
            if "cars_annos" in mats:
                notes[-1] += " (cars_annos.mat is about the photos of car_ims)"
    if known and "cars_meta" in mats:
        names = _class_names(_load_mat(tree, mats["cars_meta"]))
    if unknown := sum(label == UNLABELLED for label, _ in known.values()):
        notes.append(
            f"no label: {unknown:,} photos whose class is not a number from 1 to "
            f"{MAX_CLASSES:,}"
        )
    n_classes = 1 + max((label for label, _ in known.values()), default=-1)
    names += [f"class {number}" for number in range(len(names) + 1, n_classes + 1)]
    return known, tuple(names), notes


def _class_names(mat: dict[str, Any]) -> list[str]:
    return [str(name) for name in np.ravel(mat.get("class_names", []))]


def _annotations(mat: dict[str, Any], folder: str, name: str) -> Known:
    known = {}
    file_field = "relative_im_path" if folder == "car_ims" else "fname"
    rows = np.ravel(mat.get("annotations", []))
    fields = {file_field, "class"} | ({"test"} if folder == "car_ims" else set())
    if missing := sorted(fields - set(rows.dtype.names or ())):
        raise ValueError(
            f"{name} is not the .mat file of Stanford Cars, as its annotations have no "
            f"{', '.join(missing)}: fetch it again, or prepare the photos without "
            "labels"
        )
    for row in rows:
        split = SPLIT_OF[folder]
        if folder == "car_ims":
            split = "test" if row["test"] else "train"
        known[folder, _file_name(str(row[file_field]))] = _label(row["class"]), split
    return known


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
