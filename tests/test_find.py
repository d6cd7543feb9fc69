import sys
import zipfile
from pathlib import Path

import pytest
from photo_samples import (
    save_class_names,
    save_photos,
    save_stanford_cars,
    save_stanford_labels,
    zip_folder,
)

from ddpm_core.datasets.packed import UNLABELLED
from ddpm_core.datasets.photos.find import find_photos

REAL = Path(__file__).parents[2] / "shared" / "data" / "stanford_cars_64.zip"


def table(photos):
    """What is known of each photo: (split, the end of its name) -> its class."""
    return {
        (photo.split, Path(photo.name).name): (
            None if photo.label == UNLABELLED else photos.classes[photo.label]
        )
        for photo in photos.items
    }


STANFORD = {
    ("train", "00001.jpg"): "Audi",
    ("train", "00002.jpg"): "Acura",
    ("train", "00003.jpg"): "BMW",
    ("test", "00001.jpg"): "BMW",
    ("test", "00002.jpg"): "Audi",
}


def make_torchvision_layout(root):
    pytest.importorskip("scipy")
    save_stanford_cars(root)
    return STANFORD


def make_kaggle_layout(root):
    pytest.importorskip("scipy")
    cars = save_stanford_cars(root)
    for folder in ["cars_train", "cars_test"]:
        (cars / folder).rename(cars / "inner")
        (cars / folder).mkdir()
        (cars / "inner").rename(cars / folder / folder)
    labels = "cars_test_annos_withlabels"
    (cars / f"{labels}.mat").rename(cars / f"{labels} (1).mat")
    return STANFORD


def make_car_ims_layout(root):
    pytest.importorskip("scipy")
    import numpy as np
    from scipy.io import savemat

    save_photos(root, "car_ims/000001.jpg", "car_ims/000002.jpg")
    rows = np.empty(2, [(k, object) for k in ["relative_im_path", "class", "test"]])
    rows[0], rows[1] = ("car_ims/000001.jpg", 2, 0), ("car_ims/000002.jpg", 1, 1)
    names = np.array(["Acura", "BMW"], object)
    savemat(root / "cars_annos.mat", {"annotations": rows, "class_names": names})
    return {("train", "000001.jpg"): "BMW", ("test", "000002.jpg"): "Acura"}


def make_kaggle_by_classes(root):
    folder = "car_data/car_data"
    save_photos(
        root,
        f"{folder}/train/BMW X5/1.jpg",
        f"{folder}/train/Audi R8/2.jpg",
        f"{folder}/test/BMW X5/3.jpg",
    )
    (root / "names.csv").write_text("Audi R8\nBMW X5\n")
    return {
        ("train", "1.jpg"): "BMW X5",
        ("train", "2.jpg"): "Audi R8",
        ("test", "3.jpg"): "BMW X5",
    }


def make_class_folders(root):
    save_photos(root, "BMW/1.jpg", "Audi/2.PNG", "Audi/deeper/3.jpeg")
    return {("", "1.jpg"): "BMW", ("", "2.PNG"): "Audi", ("", "3.jpeg"): "Audi"}


def make_flat_folder(root):
    save_photos(root, "one.jpg", "two.png", "three.webp")
    return {("", name): None for name in ["one.jpg", "two.png", "three.webp"]}


def make_splits_without_classes(root):
    save_photos(root, "Train/1.jpg", "VAL/2.jpg", "testing/3.jpg")
    return {
        ("train", "1.jpg"): None,
        ("validation", "2.jpg"): None,
        ("test", "3.jpg"): None,
    }


LAYOUTS = [
    make_torchvision_layout,
    make_kaggle_layout,
    make_car_ims_layout,
    make_kaggle_by_classes,
    make_class_folders,
    make_flat_folder,
    make_splits_without_classes,
]


@pytest.mark.parametrize("make", LAYOUTS)
def test_every_layout_is_recognised(tmp_path, make):
    expected = make(tmp_path / "photos")
    photos = find_photos(tmp_path / "photos")
    assert table(photos) == expected
    assert bool(photos.classes) == any(expected.values())


@pytest.mark.parametrize("make", LAYOUTS)
def test_a_zip_is_read_as_the_folder_in_it(tmp_path, make):
    make(tmp_path / "photos")
    folder = find_photos(tmp_path / "photos")
    zipped = find_photos(zip_folder(tmp_path / "photos", tmp_path / "photos.zip"))
    assert table(zipped) == table(folder)
    assert (zipped.form, zipped.classes) == (folder.form, folder.classes)
    assert [p.read() for p in zipped.items] == [p.read() for p in folder.items]


def test_labels_are_those_that_torchvision_reads(tmp_path):
    pytest.importorskip("scipy")
    from torchvision.datasets import StanfordCars

    cars = save_stanford_cars(tmp_path)
    photos = find_photos(cars)
    for split in ["train", "test"]:
        oracle = StanfordCars(tmp_path, split)
        ours = {p.name: p.label for p in photos.items if p.split == split}
        theirs = {
            Path(file).relative_to(cars).as_posix(): label
            for file, label in oracle._samples
        }
        assert ours == theirs
        assert list(photos.classes) == oracle.classes


def test_class_folders_are_numbered_as_torchvision_does(tmp_path):
    from torchvision.datasets import ImageFolder

    make_class_folders(tmp_path)
    oracle = ImageFolder(tmp_path)
    photos = find_photos(tmp_path)
    assert list(photos.classes) == oracle.classes
    assert {tmp_path / p.name: p.label for p in photos.items} == {
        Path(file): label for file, label in oracle.samples
    }


def test_training_photos_come_first(tmp_path):
    make_splits_without_classes(tmp_path)
    splits = [photo.split for photo in find_photos(tmp_path).items]
    assert splits == ["train", "validation", "test"]


@pytest.mark.parametrize("make", LAYOUTS)
def test_labels_can_be_left_out(tmp_path, make):
    expected = make(tmp_path / "photos")
    photos = find_photos(tmp_path / "photos", labels=False)
    assert photos.classes == ()
    assert all(photo.label == UNLABELLED for photo in photos.items)
    assert len(photos.items) == len(expected)


def test_without_scipy_the_error_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    save_stanford_cars(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match="pip install scipy.*without labels"):
        find_photos(tmp_path)
    assert len(find_photos(tmp_path, labels=False).items) == 5


def test_missing_test_labels_are_noted_and_unknown(tmp_path):
    pytest.importorskip("scipy")
    cars = save_stanford_cars(tmp_path)
    (cars / "cars_test_annos_withlabels.mat").unlink()
    photos = find_photos(tmp_path)
    assert table(photos) == STANFORD | {
        ("test", "00001.jpg"): None,
        ("test", "00002.jpg"): None,
    }
    (note,) = photos.notes
    assert "cars_test_annos_withlabels.mat" in note


def test_labels_of_car_ims_are_not_put_on_other_photos(tmp_path):
    pytest.importorskip("scipy")
    save_photos(tmp_path, "cars_train/cars_train/00001.jpg")
    save_stanford_labels(tmp_path / "cars_annos.mat", ["00001.jpg"], [1])
    photos = find_photos(tmp_path)
    assert table(photos) == {("train", "00001.jpg"): None}
    assert "cars_annos.mat is about the photos of car_ims" in photos.notes[0]


def test_photos_missing_from_stanford_cars_are_counted(tmp_path):
    pytest.importorskip("scipy")
    cars = save_stanford_cars(tmp_path)
    (cars / "cars_train" / "00002.jpg").unlink()
    assert "missing: 1 photos" in find_photos(tmp_path).notes[0]


def test_classes_without_a_name_are_numbered(tmp_path):
    pytest.importorskip("scipy")
    save_photos(tmp_path, "cars_train/00001.jpg")
    save_stanford_labels(tmp_path / "cars_train_annos.mat", ["00001.jpg"], [2])
    assert find_photos(tmp_path).classes == ("class 1", "class 2")


def test_a_single_class_has_its_name(tmp_path):
    pytest.importorskip("scipy")
    save_photos(tmp_path, "cars_train/00001.jpg")
    save_stanford_labels(tmp_path / "cars_train_annos.mat", ["00001.jpg"], [1])
    save_class_names(tmp_path / "cars_meta.mat", ["Acura"])
    assert table(find_photos(tmp_path)) == {("train", "00001.jpg"): "Acura"}


def test_a_damaged_label_file_is_named(tmp_path):
    pytest.importorskip("scipy")
    cars = save_stanford_cars(tmp_path)
    (cars / "devkit" / "cars_meta.mat").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"cars_meta\.mat is not readable"):
        find_photos(tmp_path)


def test_boxes_are_counted_from_0_and_their_last_pixel_is_in_them(tmp_path):
    pytest.importorskip("scipy")
    save_stanford_cars(tmp_path)
    for labels in (True, False):
        photos = find_photos(tmp_path, labels=labels, boxes=True)
        assert {photo.box for photo in photos.items} == {(0, 0, 39, 29)}
        assert bool(photos.classes) == labels
    assert {photo.box for photo in find_photos(tmp_path).items} == {None}


def test_boxes_need_no_labels_and_labels_no_boxes(tmp_path):
    pytest.importorskip("scipy")
    cars = save_stanford_cars(tmp_path)
    (cars / "cars_test_annos_withlabels.mat").unlink()
    photos = find_photos(tmp_path, boxes=True)
    assert [photo.box for photo in photos.items] == [(0, 0, 39, 29)] * 5
    assert [photo.label for photo in photos.items] == [2, 0, 1, -1, -1]
    assert photos.notes == (
        "no labels for cars_test: there is no cars_test_annos_withlabels.mat",
    )
    (cars / "devkit" / "cars_test_annos.mat").unlink()
    with pytest.raises(
        ValueError, match=r"no boxes for cars_test: cars_test_annos\.mat"
    ):
        find_photos(tmp_path, boxes=True)


def test_a_mat_file_without_boxes_is_named(tmp_path):
    pytest.importorskip("scipy")
    make_car_ims_layout(tmp_path)
    wanted = r"cars_annos\.mat is not .* have no bbox_x1, .* without boxes"
    with pytest.raises(ValueError, match=wanted):
        find_photos(tmp_path, boxes=True)


def test_boxes_of_photos_of_another_form_are_refused(tmp_path):
    save_photos(tmp_path, "1.jpg")
    with pytest.raises(ValueError, match="boxes .* is a folder of images: prepare it"):
        find_photos(tmp_path, boxes=True)


def test_images_outside_of_the_layout_are_noted(tmp_path):
    save_photos(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "poster.jpg")
    photos = find_photos(tmp_path)
    assert len(photos.items) == 2
    assert "1 images outside" in photos.notes[0]
    save_photos(tmp_path / "cars", "cars_train/1.jpg", "poster.jpg")
    photos = find_photos(tmp_path / "cars", labels=False)
    assert len(photos.items) == 1
    assert "1 images outside" in photos.notes[0]


def test_images_beside_folders_have_no_classes(tmp_path):
    save_photos(tmp_path, "1.jpg", "a/2.jpg", "b/3.jpg")
    photos = find_photos(tmp_path)
    assert len(photos.items) == 3
    assert photos.classes == ()
    assert "no classes" in photos.notes[0]


def test_hidden_files_are_passed_over_and_others_noted(tmp_path):
    hidden = ["photos/.2.jpg", "photos/.trash/3.jpg", "photos/more/.4.jpg"]
    save_photos(tmp_path, "photos/1.jpg", *hidden)
    (tmp_path / "photos" / "readme.txt").write_text("hello")
    photos = find_photos(tmp_path / "photos")
    assert [photo.name for photo in photos.items] == ["1.jpg"]
    assert photos.notes == ("not looked at: 1 .txt, 3 hidden",)
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        archive.write(tmp_path / "photos" / "1.jpg", "photos/1.jpg")
        archive.writestr("__MACOSX/photos/._1.jpg", "shadow")
    assert len(find_photos(tmp_path / "mac.zip").items) == 1


def test_where_nothing_is_found_the_error_lists_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="Looked for:(.|\n)*hub:owner/name"):
        find_photos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no photos(.|\n)*a flat folder"):
        find_photos(tmp_path)
    (tmp_path / "cars.tgz").write_bytes(b"\x1f\x8b and so on")
    with pytest.raises(ValueError, match="neither a folder nor a whole zip"):
        find_photos(tmp_path / "cars.tgz")


def test_the_real_archive_has_16185_photos_in_196_classes():
    pytest.importorskip("scipy")
    if not REAL.exists():
        pytest.skip("there is no ../shared/data/stanford_cars_64.zip")
    photos = find_photos(REAL)
    splits = [photo.split for photo in photos.items]
    assert (splits.count("train"), splits.count("test")) == (8144, 8041)
    assert len(photos.classes) == 196
    assert {photo.label for photo in photos.items} == set(range(196))
    assert photos.notes == ()
