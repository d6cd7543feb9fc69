"""Photos in the public hub's parquet files, through `datasets` (an optional extra)."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ddpm_core.datasets.packed import UNLABELLED
from ddpm_core.datasets.photos.files import SPLITS, Photo, Photos, read_file

IMAGE_COLUMNS = ("image", "img", "photo", "picture", "jpg")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")


def hub_photos(name: str) -> Photos:
    """List the photos of the hub's data set `owner/name`, fetched if need be.

    Raises ImportError without the package datasets, FileNotFoundError where the hub
    does not give the data set, and ValueError where it holds no images.
    """
    datasets = _import_datasets()
    try:
        splits = datasets.load_dataset(name)
    except (OSError, ValueError) as error:  # no such name, not public, or no network
        raise FileNotFoundError(f"cannot get {name!r} from the hub: {error}") from error
    cache = datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME
    return _photos(datasets, splits, tuple(Path(folder).resolve() for folder in cache))


def parquet_photos(files: list[Path]) -> Photos:
    """List the photos in parquet files, whose names tell their splits."""
    datasets = _import_datasets()
    by_split: dict[str, list[str]] = {}
    for file in files:
        by_split.setdefault(_split_of(file), []).append(str(file))
    if len(by_split) == 2 and "unsplit" in by_split:  # bus, car and train are classes
        by_split = {"unsplit": [str(file) for file in files]}
    try:
        splits = datasets.load_dataset("parquet", data_files=by_split)
    except Exception as error:  # for a damaged file there is no one kind of error
        names = ", ".join(str(file) for file in files[:3])
        raise ValueError(f"cannot read {names}: {error.__cause__ or error}") from error
    return _photos(datasets, splits)


def _split_of(file: Path) -> str:
    """Read the split off a name: train-00000-of-00001.parquet, test/0000.parquet."""
    words = [*re.split("[^a-z]+", file.stem.lower()), file.parent.name.lower()]
    return next((SPLITS[word] for word in words if word in SPLITS), "unsplit")


def _photos(
    datasets: Any, splits: Mapping[str, Any], cache: tuple[Path, ...] = ()
) -> Photos:
    """List the rows of the known splits; where there are none, those of all splits.

    `cache`: the folders in which a row may name a file. (One that was downloaded names
    any; what a parquet file from anywhere names is not read.)
    """
    known = [split for split in splits if split in SPLITS]
    notes = []
    if known and (others := [split for split in splits if split not in SPLITS]):
        # Some copies on the hub carry a blurred or noisy test set beside the real one.
        notes.append(f"left out: the splits {', '.join(others)}")
    used = {split: splits[split] for split in known or splits}
    numbers, classes = _number_labels(datasets, used)
    items = []
    for split, dataset in used.items():
        column = _column(dataset, datasets.Image, IMAGE_COLUMNS)
        if column is None:
            raise ValueError(
                f"no column of images in {dataset.column_names}; looked for "
                f"{', '.join(IMAGE_COLUMNS)}"
            )
        rows = dataset.select_columns([column])
        rows = rows.cast_column(column, datasets.Image(decode=False))
        for i in range(len(rows)):
            label = numbers[split][i] if numbers else UNLABELLED
            read = partial(_read_row, rows, i, column, cache)
            items.append(Photo(f"{split} row {i}", read, label, SPLITS.get(split, "")))
    return Photos("parquet files", tuple(items), classes, tuple(notes))


def _number_labels(
    datasets: Any, splits: Mapping[str, Any]
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Return the label of each row of each split, and the names of the classes."""
    dataset = next(iter(splits.values()))
    column = _column(dataset, datasets.ClassLabel, LABEL_COLUMNS)
    if column is None or not _is_plain(datasets, dataset.features[column]):
        return {}, ()
    values = {split: list(dataset[column]) for split, dataset in splits.items()}
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        classes, order = feature.names, range(feature.num_classes)
    else:
        order = sorted({v for rows in values.values() for v in rows if v is not None})
        classes = map(str, order)
    number = {value: label for label, value in enumerate(order)}
    numbers = {
        split: [number.get(value, UNLABELLED) for value in rows]
        for split, rows in values.items()
    }
    return numbers, tuple(classes)


def _is_plain(datasets: Any, feature: Any) -> bool:
    """Tell labels of one number or name each from lists and the like."""
    return isinstance(feature, datasets.ClassLabel | datasets.Value)


def _column(dataset: Any, kind: type, names: tuple[str, ...]) -> str | None:
    """Return the column whose feature is of `kind`, else the first of `names`."""
    features = dataset.features
    typed = [name for name, feature in features.items() if isinstance(feature, kind)]
    return next(iter([*typed, *(name for name in names if name in features)]), None)


def _read_row(rows: Any, i: int, column: str, cache: tuple[Path, ...]) -> bytes:
    image = rows[i][column] or {}
    if data := image.get("bytes"):
        return data
    if path := image.get("path"):
        file = Path(path).resolve()
        if not any(file.is_relative_to(folder) for folder in cache):
            raise ValueError(f"the row names a file, which is not read: {path}")
        return read_file(file)
    raise ValueError("the row holds no image")


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "parquet files and the hub are read by the package datasets, which is not "
            "installed: `pip install datasets`"
        ) from error
    return datasets
