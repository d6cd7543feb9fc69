import hashlib
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ddpm_core.datasets import atomic
from ddpm_core.datasets.packed import (
    UNLABELLED,
    PackedImages,
    _identity,
    packed_writer,
    read_meta,
    write_packed,
)


def random_images(n=7, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.fixture
def cache(tmp_path):
    labels = [0, 1, 1, UNLABELLED, 0, 1, 0]
    write_packed(
        tmp_path / "cache",
        random_images(),
        labels=labels,
        classes=("Audi", "Škoda"),
        source="my photos",
        fit="squash",
    )
    return tmp_path / "cache"


def change_meta(path, **changes):
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    (path / "meta.json").write_text(json.dumps(meta | changes))


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_what_is_packed_comes_back(cache):
    packed_images = PackedImages.open(cache)
    np.testing.assert_array_equal(packed_images.images, random_images())
    np.testing.assert_array_equal(packed_images.labels, [0, 1, 1, -1, 0, 1, 0])
    assert packed_images.labels.dtype == np.int64
    assert packed_images.classes == ("Audi", "Škoda")
    assert packed_images.source == "my photos"
    assert (len(packed_images), packed_images.size) == (7, 8)
    assert packed_images.sha256 == read_meta(cache)["sha256"]
    assert read_meta(cache)["fit"] == "squash"


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        np.int64(2),
        slice(None),
        slice(5, 1, -2),
        slice(3, 3),
        [2, 0, 2],
        [],
        np.array([[0, 6], [1, 1]]),
        np.arange(7) % 2 == 0,
        ...,
        (slice(None), slice(None), slice(None, None, -1)),
        (0, slice(None), 0),
        (..., 1),
        ([0, 1], [2, 3]),
        torch.tensor([5, 1]),
    ],
)
def test_stored_images_are_indexed_as_an_array(cache, index):
    images = PackedImages.open(cache).images
    np.testing.assert_array_equal(images[index], random_images()[index])
    assert (images.shape, images.dtype, images.ndim) == ((7, 8, 8, 3), np.uint8, 4)


def test_a_row_that_there_is_not_is_refused(cache):
    with pytest.raises(IndexError, match="7 is out of bounds"):
        PackedImages.open(cache).images[7]


def overwrite_half(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    with open(path, "rb+") as file:
        file.write(data)


@pytest.mark.parametrize("size", [0, 100, 500, 1471])
def test_images_truncated_while_in_use_are_an_error(cache, size):
    images = PackedImages.open(cache).images
    os.truncate(cache / "images.npy", size)
    with pytest.raises(OSError, match=r"images\.npy was changed while it was in use"):
        images[[0, 6]]


def test_images_overwritten_while_in_use_are_an_error(cache):
    images = PackedImages.open(cache).images
    state = os.stat(cache / "images.npy")
    overwrite_half(cache / "images.npy")
    # A coarse clock might not have moved on since the file was packed.
    os.utime(cache / "images.npy", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(OSError, match="was changed while it was in use"):
        images[0]


def test_overwritten_pixels_are_noticed(cache):
    overwrite_half(cache / "images.npy")
    with pytest.raises(ValueError, match=r"images\.npy has changed since .*sha256"):
        PackedImages.open(cache)


def test_threads_read_the_same_file(cache):
    images, expected = PackedImages.open(cache).images, random_images()
    with ThreadPoolExecutor(4) as pool:
        rows = [row % 7 for row in range(200)]
        for row, image in zip(rows, pool.map(images.__getitem__, rows), strict=True):
            np.testing.assert_array_equal(image, expected[row])


def test_a_reader_finds_the_old_or_the_new_folder(tmp_path):
    written, stop = [random_images(3, seed=i) for i in range(2)], threading.Event()
    sums = {write_packed(tmp_path / "cache", images).sha256 for images in written}

    def rewrite():
        for images in itertools.cycle(written):
            write_packed(tmp_path / "cache", images)
            if stop.is_set():
                break

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(rewrite)
        try:
            assert {
                PackedImages.open(tmp_path / "cache").sha256 for _ in range(300)
            } <= sums
        finally:
            stop.set()
        writer.result()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_folders_are_told_apart_that_have_the_number_of_an_earlier_one(tmp_path):
    found = []
    for _ in range(20):
        write_packed(tmp_path / "cache", random_images(3))
        found.append(_identity(tmp_path / "cache"))
    assert len(set(found)) == len(found)


def test_numpy_alone_reads_it(cache):
    np.testing.assert_array_equal(np.load(cache / "images.npy"), random_images())


def test_a_stream_is_packed_without_labels(tmp_path):
    stream = (image for image in random_images(1000))
    packed_images = write_packed(tmp_path / "cache", stream)
    np.testing.assert_array_equal(packed_images.images, random_images(1000))
    assert packed_images.labels is None
    assert not (tmp_path / "cache" / "labels.npy").exists()


def test_labels_that_are_all_unknown_are_none(tmp_path):
    labels = [UNLABELLED] * 7
    packed_images = write_packed(tmp_path / "cache", random_images(), labels=labels)
    assert packed_images.labels is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 6, "shorter"),
        ([0] * 8, "longer"),
        ([2] * 7, r"0\.\.1 .*got 2\.\.2"),
        ([-2] * 7, r"got -2\.\.-2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    with pytest.raises(ValueError, match=message):
        write_packed(
            tmp_path / "cache", random_images(), labels=labels, classes=("a", "b")
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((8, 9, 3), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
    ],
)
def test_a_bad_image_midway_leaves_the_earlier_cache_untouched(cache, bad):
    with pytest.raises(ValueError, match="image 3 must be uint8"):
        write_packed(cache, [*random_images(3, seed=1), bad])
    np.testing.assert_array_equal(PackedImages.open(cache).images, random_images())
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


def test_no_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no images"):
        write_packed(tmp_path / "cache", [])
    with (
        pytest.raises(ValueError, match="no images"),
        packed_writer(tmp_path / "cache", size=8),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_meta_cannot_override_the_record(tmp_path):
    write_packed(tmp_path / "cache", random_images(), n=3, version=99)
    assert len(PackedImages.open(tmp_path / "cache")) == 7


@pytest.mark.parametrize("keep", [40, 500])
def test_truncated_images_are_told(cache, keep):
    images = cache / "images.npy"
    images.write_bytes(images.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"images\.npy is truncated"):
        PackedImages.open(cache)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_a_changed_byte_is_noticed(cache, name):
    flip_last_byte(cache / name)
    with pytest.raises(ValueError, match=f"{name} has changed"):
        PackedImages.open(cache)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "meta.json"])
def test_a_missing_part_is_named(cache, name):
    (cache / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        PackedImages.open(cache)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2, and this library reads version 1"),
        ({"format": "parquet"}, "does not describe packed images"),
        ({"n": 8}, "8 images of side 8, but images.npy has the shape"),
        ({"classes": ["only one"]}, r"0\.\.0 \(1 classes\)"),
    ],
)
def test_foreign_meta_is_told(cache, changes, message):
    change_meta(cache, **changes)
    with pytest.raises(ValueError, match=message):
        PackedImages.open(cache)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "ddpm-packed-images"}'])
def test_broken_meta_is_told(cache, text):
    (cache / "meta.json").write_text(text)
    with pytest.raises(ValueError, match=r"meta\.json"):
        PackedImages.open(cache)


def test_a_lacking_key_is_named(cache):
    meta = json.loads((cache / "meta.json").read_text(encoding="utf-8"))
    del meta["sha256"]
    (cache / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="lacks sha256"):
        PackedImages.open(cache)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", "7"),
        ("size", None),
        ("classes", {"a": 1}),
        ("classes", ["Audi", 2]),
        ("sha256", 5),
        ("labels_sha256", []),
        ("source", None),
    ],
)
def test_values_of_a_wrong_kind_are_named(cache, key, value):
    change_meta(cache, **{key: value})
    with pytest.raises(ValueError, match=rf"meta\.json: {key} cannot be"):
        PackedImages.open(cache)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 8, 8, 3), np.float32), "uint8 .*got float32"),
        (np.zeros((7, 8, 8), np.uint8), r"got uint8 \(7, 8, 8\)"),
        (np.asfortranarray(np.zeros((7, 8, 8, 3), np.uint8)), "not rows of numbers"),
        (np.array(5), "not rows of numbers"),
        (np.full((7, 8, 8, 3), None), "not rows of numbers"),
    ],
)
def test_another_dtype_or_shape_is_named(cache, array, message):
    np.save(cache / "images.npy", array)
    data = (cache / "images.npy").read_bytes()
    change_meta(cache, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ValueError, match=message):
        PackedImages.open(cache)


def test_only_packed_images_are_replaced(tmp_path, cache):
    mine = tmp_path / "mine"
    mine.mkdir()
    write_packed(mine, random_images())  # an empty folder is free to take
    write_packed(mine, random_images(3, seed=1))
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="mine"):
        write_packed(mine, random_images())
    change_meta(cache, format="somebody else's")
    with pytest.raises(FileExistsError, match="cache"):
        write_packed(cache, random_images())
    file = tmp_path / "file"
    file.write_text("a file")
    with pytest.raises(FileExistsError, match="file"):
        write_packed(file, random_images())
    assert file.read_text() == "a file"


def test_a_cache_in_the_middle_of_a_swap_opens(cache):
    cache.rename(cache.with_name(".cache.previous"))
    assert len(PackedImages.open(cache)) == 7


def test_the_disk_must_have_room_for_what_is_expected(tmp_path):
    with (
        pytest.raises(OSError, match="MB are needed"),
        packed_writer(tmp_path / "cache", size=64) as writer,
    ):
        writer.expect(10**13)
        pytest.fail("it is to be refused before any work is done")


def test_a_disk_that_fills_up_leaves_the_earlier_cache(cache, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full; nothing was changed"):
        write_packed(cache, random_images(3))
    assert len(PackedImages.open(cache)) == 7
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


def test_mapped_images_stay_readable_when_the_cache_is_replaced(cache):
    before = PackedImages.open(cache)
    write_packed(cache, random_images(3, seed=1))
    np.testing.assert_array_equal(before.images, random_images())
    np.testing.assert_array_equal(
        PackedImages.open(cache).images, random_images(3, seed=1)
    )
