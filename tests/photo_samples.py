"""Small photo collections that the tests draw for themselves."""

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def save_photo(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    """Save a smooth colour gradient, a different one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    image = Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    image.save(path, quality=95)


def save_photos(root: Path, *names: str) -> None:
    """Save one photo for each name below `root`."""
    for seed, name in enumerate(names):
        save_photo(root / name, seed)


def zip_folder(folder: Path, path: Path) -> Path:
    """Zip what is in `folder`, as a file manager does, with its name before all."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path(folder.name) / file.relative_to(folder))
    return path


WHOLE = (1, 1, 39, 29)


def save_stanford_labels(
    path: Path, files: list[str], classes: list[int] | None, boxes: list | None = None
) -> None:
    """Save a .mat file of annotations as the devkit of Stanford Cars has it."""
    from scipy.io import savemat

    columns = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]
    columns += ["fname"] if classes is None else ["class", "fname"]
    rows = np.empty(len(files), [(column, object) for column in columns])
    for i, file in enumerate(files):
        label = () if classes is None else (classes[i],)
        rows[i] = (*(boxes[i] if boxes else WHOLE), *label, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": rows})


def save_class_names(path: Path, names: list[str]) -> None:
    """Save the names of the classes as cars_meta.mat has them."""
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"class_names": np.array(names, object)})


def save_stanford_cars(root: Path) -> Path:
    """Save three training and two test photos as torchvision lays them out."""
    cars = root / "stanford_cars"
    train, test = ["00001.jpg", "00002.jpg", "00003.jpg"], ["00001.jpg", "00002.jpg"]
    save_photos(cars, *(f"cars_train/{name}" for name in train))
    save_photos(cars, *(f"cars_test/{name}" for name in test))
    devkit = cars / "devkit"
    save_class_names(devkit / "cars_meta.mat", ["Acura", "BMW", "Audi"])
    save_stanford_labels(devkit / "cars_train_annos.mat", train, [3, 1, 2])
    save_stanford_labels(devkit / "cars_test_annos.mat", test, None)
    save_stanford_labels(cars / "cars_test_annos_withlabels.mat", test, [2, 3])
    return cars
