import sys

import pytest
from photo_samples import save_photos

from ddpm_core.datasets.packed import UNLABELLED, PackedImages
from ddpm_core.datasets.photos.find import find_photos
from ddpm_core.datasets.photos.prepare import prepare

CLASSES = ["Acura", "BMW", "Audi"]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The package, with its cache of converted files in a place of the test's own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    return datasets


def make_dataset(datasets, root, labels, feature=None, image="image"):
    """A data set as the hub has it: encoded images, labels, and another column."""
    names = [f"{i}.jpg" for i in range(len(labels))]
    save_photos(root, *names)
    columns = {
        image: [{"bytes": (root / name).read_bytes(), "path": name} for name in names],
        "label": labels,
        "caption": names,
    }
    features = {
        image: datasets.Image(),
        "label": feature or datasets.ClassLabel(names=CLASSES),
        "caption": datasets.Value("string"),
    }
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def test_a_folder_of_parquet_files_has_splits_and_named_classes(tmp_path, datasets):
    folder = tmp_path / "data"
    folder.mkdir()
    train = make_dataset(datasets, tmp_path / "a", [2, 0, 1])
    test = make_dataset(datasets, tmp_path / "b", [1, -1])
    train.to_parquet(folder / "train-00000-of-00001.parquet")
    test.to_parquet(folder / "test-00000-of-00001.parquet")
    photos = find_photos(folder)
    assert [p.split for p in photos.items] == ["train"] * 3 + ["test"] * 2
    assert [p.label for p in photos.items] == [2, 0, 1, 1, UNLABELLED]
    assert photos.classes == tuple(CLASSES)
    files = [tmp_path / "a" / f"{i}.jpg" for i in range(3)]
    files += [tmp_path / "b" / f"{i}.jpg" for i in range(2)]
    assert [p.read() for p in photos.items] == [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("string", ["Opel", "Audi", "Opel"], ("Audi", "Opel")),
        ("int64", [5, 3, 5], ("3", "5")),
    ],
)
def test_plain_labels_are_numbered(tmp_path, datasets, kind, labels, classes):
    data = make_dataset(datasets, tmp_path / "a", labels, datasets.Value(kind), "img")
    data.to_parquet(tmp_path / "cars.parquet")
    photos = find_photos(tmp_path / "cars.parquet")
    assert [p.label for p in photos.items] == [1, 0, 1]
    assert photos.classes == classes
    assert {p.split for p in photos.items} == {""}
    assert find_photos(tmp_path / "cars.parquet", labels=False).classes == ()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("cars_valid.parquet", "validation"),
        ("test/0000.parquet", "test"),
        ("test_drives/cars.parquet", ""),
    ],
)
def test_the_names_of_files_tell_their_split(tmp_path, datasets, name, split):
    (tmp_path / "data" / name).parent.mkdir(parents=True)
    make_dataset(datasets, tmp_path / "a", [1]).to_parquet(tmp_path / "data" / name)
    assert [p.split for p in find_photos(tmp_path / "data").items] == [split]


def test_parquet_without_the_hubs_own_description_is_read(tmp_path, datasets):
    import pyarrow
    from pyarrow import parquet

    save_photos(tmp_path, "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    bare = pyarrow.table({"image": [{"bytes": data, "path": None}], "label": ["Audi"]})
    parquet.write_table(bare, tmp_path / "bare.parquet")
    photos = find_photos(tmp_path / "bare.parquet")
    assert photos.items[0].read() == data
    assert photos.classes == ("Audi",)


def test_a_parquet_file_is_packed_and_its_empty_row_skipped(tmp_path, datasets):
    data = make_dataset(datasets, tmp_path / "a", [2, 0, 1])
    images = [*data.to_dict()["image"][:2], None]
    data = data.remove_columns("image").add_column("image", images)
    data = data.cast_column("image", datasets.Image())
    data.to_parquet(tmp_path / "cars.parquet")
    report = prepare(
        tmp_path / "cars.parquet", tmp_path / "out", size=16, progress=False
    )
    assert report.skipped == (("unsplit row 2", "the row holds no image"),)
    packed = PackedImages.open(tmp_path / "out")
    assert packed.labels.tolist() == [2, 0]


def test_a_data_set_of_the_hub_is_taken_without_its_spoilt_copies(
    tmp_path, datasets, monkeypatch
):
    def load_dataset(name):
        assert name == "somebody/stanford_cars"
        data = make_dataset(datasets, tmp_path / "a", [2, 0, 1])
        return datasets.DatasetDict(train=data, motion_blur=data, test=data)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    photos = find_photos("hub:somebody/stanford_cars")
    assert [p.split for p in photos.items] == ["train"] * 3 + ["test"] * 3
    assert photos.notes == ("left out: the splits motion_blur",)


def test_a_data_set_that_the_hub_does_not_give_is_named(datasets, monkeypatch):
    def load_dataset(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(FileNotFoundError, match="'a/b' from the hub: no network"):
        find_photos("hub:a/b")


def test_parquet_without_images_is_told(tmp_path, datasets):
    table = datasets.Dataset.from_dict({"speed": [1, 2]})
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=r"no column of images in \['speed'\]"):
        find_photos(tmp_path / "table.parquet")


def test_a_damaged_parquet_file_is_named(tmp_path, datasets):
    (tmp_path / "cars.parquet").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"cannot read .*cars\.parquet"):
        find_photos(tmp_path / "cars.parquet")


def test_without_datasets_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "cars.parquet").touch()
    for source in [tmp_path / "cars.parquet", "hub:somebody/stanford_cars"]:
        with pytest.raises(ImportError, match="pip install datasets"):
            find_photos(source)
