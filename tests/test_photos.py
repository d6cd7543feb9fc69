import os
import shutil
import signal
import struct
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from photo_samples import save_photo, save_photos, zip_folder
from PIL import EpsImagePlugin, Image

from ddpm_core.datasets.packed import UNLABELLED, PackedImages, read_meta
from ddpm_core.datasets.photos import files as sources
from ddpm_core.datasets.photos import prepare as photos
from ddpm_core.datasets.photos.prepare import centre_crop, prepare, squash

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)


def pack(source, out, **options):
    """Prepare at 16 pixels and return the report and what was packed."""
    report = prepare(source, out, **({"size": 16, "progress": False} | options))
    return report, PackedImages.open(out)


def banded(size, *colours):
    """An image of upright bands of equal width."""
    row = np.repeat(np.array(colours, np.uint8), size[0] // len(colours), axis=0)
    return Image.fromarray(np.tile(row, (size[1], 1, 1)))


def assert_colour(pixels, colour):
    np.testing.assert_allclose(pixels, np.broadcast_to(colour, pixels.shape), atol=4)


def test_the_report_and_the_cache_tell_the_same(tmp_path):
    save_photos(tmp_path / "p", "train/Audi/1.jpg", "train/BMW/2.jpg", "test/BMW/3.jpg")
    report, packed = pack(tmp_path / "p", tmp_path / "out")
    assert (report.n, report.size, len(packed), packed.size) == (3, 16, 3, 16)
    assert report.classes == packed.classes == ("Audi", "BMW")
    assert report.splits == {"train": 2, "test": 1}
    assert packed.labels.tolist() == [0, 1, 1]
    meta = read_meta(tmp_path / "out")
    assert (meta["fit"], meta["source"]) == ("squash", str(tmp_path / "p"))
    assert meta["splits"] == report.splits
    assert "3 images of 16x16, 2 train, 1 test" in str(report)
    assert "class folders, 2 classes" in str(report)


def test_squash_keeps_all_and_crop_keeps_the_aspect(tmp_path):
    (tmp_path / "p").mkdir()
    banded((80, 40), RED, GREEN, GREEN, BLUE).save(tmp_path / "p" / "wide.png")
    _, squashed = pack(tmp_path / "p", tmp_path / "s", fit=squash)
    _, cropped = pack(tmp_path / "p", tmp_path / "c", fit=centre_crop)
    assert_colour(squashed.images[0, :, 0], RED)
    assert_colour(squashed.images[0, :, -1], BLUE)
    assert_colour(squashed.images[0, :, 6:10], GREEN)
    # The edge pixels feel the neighbouring bands that the crop cut off.
    assert_colour(cropped.images[0, :, 1:-1], GREEN)
    assert read_meta(tmp_path / "c")["fit"] == "centre_crop"


def test_a_crop_of_a_tall_image_keeps_its_middle(tmp_path):
    tall = banded((80, 40), RED, GREEN, GREEN, BLUE).transpose(
        Image.Transpose.ROTATE_90
    )
    assert_colour(np.asarray(centre_crop(tall, 16))[1:-1], GREEN)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    grey = Image.new("L", (32, 32), 255)
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), 65535, np.uint16))
    else:
        image = grey.convert(mode)
    assert image.mode == mode
    (tmp_path / "p").mkdir()
    image.save(tmp_path / "p" / ("a.jpg" if mode == "CMYK" else "a.png"))
    _, packed = pack(tmp_path / "p", tmp_path / "out")
    assert_colour(packed.images, (255, 255, 255))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    (tmp_path / "p").mkdir()
    levels = np.full((32, 32), 100 * 257 + 100, np.uint16)
    Image.fromarray(levels).save(tmp_path / "p" / "a.png")
    _, packed = pack(tmp_path / "p", tmp_path / "out")
    assert_colour(packed.images, (100, 100, 100))


def test_what_is_transparent_becomes_white(tmp_path):
    image = banded((32, 32), RED, BLUE).convert("RGBA")
    image.putalpha(banded((32, 32), (255,) * 3, (0,) * 3).convert("L"))
    (tmp_path / "p").mkdir()
    image.save(tmp_path / "p" / "a.png")
    _, packed = pack(tmp_path / "p", tmp_path / "out")
    assert_colour(packed.images[0, :, :6], RED)
    assert_colour(packed.images[0, :, -6:], (255, 255, 255))


def test_a_rotated_photo_is_set_upright(tmp_path):
    image = banded((64, 64), RED, BLUE)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it turned 90 degrees clockwise
    (tmp_path / "p").mkdir()
    image.save(tmp_path / "p" / "a.jpg", quality=95, exif=exif)
    _, packed = pack(tmp_path / "p", tmp_path / "out")
    assert packed.images[0, :6, :, 0].mean() > 180  # red above
    assert packed.images[0, -6:, :, 2].mean() > 180  # blue below


@pytest.mark.parametrize("scale", [1, 2, 6])
def test_photos_decoded_at_a_reduced_scale_look_the_same(tmp_path, scale):
    blocks = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    size = (160 * scale, 120 * scale)
    image = Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)
    (tmp_path / "p").mkdir()
    image.save(tmp_path / "p" / "a.jpg", quality=95, subsampling=0)
    _, packed = pack(tmp_path / "p", tmp_path / "out", size=32)
    full = image.resize((32, 32), Image.Resampling.LANCZOS)
    difference = packed.images[0].astype(int) - np.asarray(full, int)
    assert np.abs(difference).max() <= 8


@pytest.fixture
def mixed(tmp_path):
    """Class folders with good photos, and a bad one of every kind."""
    root = tmp_path / "mixed"
    save_photos(root, "a/1.jpg", "a/5.jpg", "b/3.jpg", "b/9.jpg")
    save_photo(root / "a" / "2_tiny.png", size=(40, 7))
    whole = (root / "a" / "1.jpg").read_bytes()
    (root / "b" / "4_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "5_text.jpg").write_text("not a photo at all")
    (root / "b" / "6_empty.jpg").touch()
    return root


def test_bad_files_are_named_and_the_rest_keeps_its_labels(tmp_path, mixed):
    report, packed = pack(mixed, tmp_path / "out")
    reasons = dict(report.skipped)
    assert sorted(reasons) == [
        "a/2_tiny.png",
        "b/4_truncated.jpg",
        "b/5_text.jpg",
        "b/6_empty.jpg",
    ]
    assert reasons["a/2_tiny.png"] == (
        "too small: 40x7, the shorter side must have 8 pixels"
    )
    assert "truncated" in reasons["b/4_truncated.jpg"].lower()
    assert reasons["b/5_text.jpg"] == "not an image"
    assert reasons["b/6_empty.jpg"] == "not an image: an empty file"
    assert packed.labels.tolist() == [0, 0, 1, 1]
    meta = read_meta(tmp_path / "out")
    assert dict(meta["skipped"]) == reasons
    assert "skipped: 4 files" in str(report)
    assert "b/5_text.jpg: not an image" in str(report)


def test_a_zip_with_a_damaged_photo_is_read_on(tmp_path, mixed):
    archive = zip_folder(mixed, tmp_path / "mixed.zip")
    data = archive.read_bytes()
    good = (mixed / "a" / "5.jpg").read_bytes()
    at = data.index(good) + len(good) // 2
    archive.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    report, packed = pack(archive, tmp_path / "out")
    assert "CRC" in dict(report.skipped)["mixed/a/5.jpg"]
    assert packed.labels.tolist() == [0, 1, 1]


def test_a_long_list_of_skipped_files_is_cut_in_print_only(tmp_path):
    save_photo(tmp_path / "p" / "good.jpg")
    for i in range(25):
        (tmp_path / "p" / f"{i:02}.jpg").write_text("no")
    report, _ = pack(tmp_path / "p", tmp_path / "out")
    assert len(report.skipped) == len(read_meta(tmp_path / "out")["skipped"]) == 25
    assert str(report).endswith("and 15 more, see meta.json")


def test_the_least_side_can_be_chosen(tmp_path):
    save_photo(tmp_path / "p" / "small.png", 0, (12, 12))
    save_photo(tmp_path / "p" / "large.png", 1, (40, 40))
    assert pack(tmp_path / "p", tmp_path / "a")[0].n == 2
    assert pack(tmp_path / "p", tmp_path / "b", size=64)[0].n == 1  # under 64 / 4
    assert pack(tmp_path / "p", tmp_path / "c", size=64, min_side=1)[0].n == 2
    assert pack(tmp_path / "p", tmp_path / "d", min_side=40)[0].n == 1


def test_no_usable_photo_is_an_error_and_the_earlier_cache_stays(tmp_path, mixed):
    pack(mixed, tmp_path / "out")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_text("no")
    with pytest.raises(ValueError, match=r"none of the 1 photos.*a\.jpg: not an image"):
        pack(tmp_path / "p", tmp_path / "out")
    assert len(PackedImages.open(tmp_path / "out")) == 4


def test_an_interrupt_leaves_the_earlier_cache_and_nothing_else(tmp_path, mixed):
    pack(mixed, tmp_path / "caches" / "out")
    seen = []

    def interrupted(image, size):
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return squash(image, size)

    with pytest.raises(KeyboardInterrupt):
        pack(mixed, tmp_path / "caches" / "out", fit=interrupted, workers=1)
    assert len(PackedImages.open(tmp_path / "caches" / "out")) == 4
    assert [path.name for path in (tmp_path / "caches").iterdir()] == ["out"]


def test_the_number_of_workers_changes_nothing(tmp_path):
    save_photos(tmp_path / "p", *(f"{i:03}.jpg" for i in range(60)))
    _, one = pack(tmp_path / "p", tmp_path / "one", workers=1)
    _, four = pack(tmp_path / "p", tmp_path / "four", workers=4)
    assert one.sha256 == four.sha256
    assert len(one) == 60


def test_exact_copies_are_counted_and_kept(tmp_path):
    save_photos(tmp_path / "p", "1.png", "2.png")
    for name in ["3.png", "4.png"]:
        save_photo(tmp_path / "p" / name, seed=0)
    report, packed = pack(tmp_path / "p", tmp_path / "out")
    assert (report.duplicates, len(packed)) == (2, 4)
    assert "2 exact copies" in str(report)


def test_one_split_can_be_taken(tmp_path):
    save_photos(tmp_path / "p", "train/a/1.jpg", "train/b/2.jpg", "test/b/3.jpg")
    report, packed = pack(tmp_path / "p", tmp_path / "out", split="test")
    assert report.splits == {"test": 1}
    assert packed.labels.tolist() == [1]
    assert packed.classes == ("a", "b")
    with pytest.raises(ValueError, match="one of all, test, train .*got 'best'"):
        pack(tmp_path / "p", tmp_path / "out", split="best")


def test_labels_can_be_left_out(tmp_path, mixed):
    report, packed = pack(mixed, tmp_path / "out", labels=False)
    assert packed.labels is None
    assert packed.classes == report.classes == ()
    assert report.unlabelled == 4


def test_unknown_labels_are_counted(tmp_path):
    pytest.importorskip("scipy")
    from photo_samples import save_stanford_cars

    cars = save_stanford_cars(tmp_path)
    (cars / "cars_test_annos_withlabels.mat").unlink()
    report, packed = pack(cars, tmp_path / "out")
    assert packed.labels.tolist() == [2, 0, 1, UNLABELLED, UNLABELLED]
    assert "no label: 2 images" in str(report)


def test_the_source_itself_is_not_overwritten(tmp_path, mixed):
    with pytest.raises(FileExistsError):
        pack(mixed, mixed)
    assert (mixed / "a" / "1.jpg").exists()


def test_too_small_a_size_is_refused(tmp_path, mixed):
    with pytest.raises(ValueError, match="at least 8 pixels, got 4"):
        pack(mixed, tmp_path / "out", size=4)


def zip_of(path, *entries):
    """Write a zip of (name or ZipInfo, data) pairs, names as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            info = name
            if not isinstance(name, zipfile.ZipInfo):
                info = zipfile.ZipInfo("x")
                info.filename = name
            archive.writestr(info, data)
    return path


@pytest.fixture
def jpeg(tmp_path):
    save_photo(tmp_path / "one" / "1.jpg")
    return (tmp_path / "one" / "1.jpg").read_bytes()


def test_a_zip_with_backslashes_is_read_as_one_with_slashes(tmp_path, jpeg):
    names = [rf"cars\{s}\{c}\1.jpg" for s in ["train", "test"] for c in ["Audi", "BMW"]]
    shadows = [r"__MACOSX\cars\train\Audi\._1.jpg", "cars\\"]
    entries = [(name, jpeg) for name in names + shadows]
    report, packed = pack(zip_of(tmp_path / "a.zip", *entries), tmp_path / "out")
    assert (report.splits, report.classes) == ({"train": 2, "test": 2}, ("Audi", "BMW"))
    assert packed.labels.tolist() == [0, 1, 0, 1]
    assert report.skipped == ()


def test_what_a_zip_may_not_hold_is_named(tmp_path, jpeg, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", len(jpeg))
    link, lzma = zipfile.ZipInfo("a/link.jpg"), zipfile.ZipInfo("a/rare.jpg")
    link.external_attr, lzma.compress_type = 0o120777 << 16, zipfile.ZIP_LZMA
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zip_of(
            tmp_path / "a.zip",
            ("./a/good.jpg", jpeg),
            ("/b/good.jpg", jpeg),
            ("b/good.jpg", jpeg),
            ("x", jpeg),
            ("x", jpeg),
            ("../../up.jpg", jpeg),
            (link, "/etc/passwd"),
            (lzma, jpeg),
            ("b/bomb.png", bytes(len(jpeg) + 1)),
            ("b/secret.jpg", jpeg),
            ("inner.zip", b"PK"),
        )
    data = bytearray(path.read_bytes())
    data[data.rindex(b"b/secret.jpg") - 46 + 8] |= 1  # the flag of encryption
    path.write_bytes(data)
    report, _ = pack(path, tmp_path / "out")
    assert dict(report.skipped) == {
        "b/good.jpg": "a later entry has the same name",
        "x": "a later entry has the same name",
        "../../up.jpg": "a name that leads out of the zip",
        "a/link.jpg": "a link or a device, not a regular file",
        "a/rare.jpg": "compressed in a rare way: unpack the zip",
        "b/bomb.png": "larger than a photo: 0 MiB, and at most 0 MiB are read",
        "b/secret.jpg": "encrypted: unpack the zip with its password",
    }
    assert report.n == 2
    assert report.notes == ("not looked at: 1 without ending, 1 .zip (unpack them)",)


def test_names_in_a_zip_are_utf8_whatever_they_claim(tmp_path, jpeg):
    entries = [("XXXXXX/1.jpg", jpeg), ("Citroën/2.jpg", jpeg), ("Łada/3.jpg", jpeg)]
    path = zip_of(tmp_path / "a.zip", *entries)
    data = path.read_bytes().replace(b"XXXXXX", "Škoda".encode())  # without the flag
    path.write_bytes(data.replace("Citroën".encode(), b"Citro\xeb\xebn"))  # with it
    report, _ = pack(path, tmp_path / "out")
    assert report.classes == ("Citroδδn", "Łada", "Škoda")
    assert (report.n, report.skipped) == (3, ())


def test_special_files_are_named_and_each_file_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_BYTES", 2**20)
    root = tmp_path / "p"
    save_photos(root, "a/1.jpg", "b/2.jpg")
    save_photo(tmp_path / "private.jpg")
    links = {
        "a/up": "..",
        "b/loop": ".",
        "a/self": "self",
        "a/gone.jpg": "nothing.jpg",
        "a/zero.jpg": "/dev/zero",
        "a/leak.jpg": "../../private.jpg",
        "a/again.jpg": "1.jpg",
        "a/b": "../b",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.link(root / "b" / "2.jpg", root / "b" / "hard.jpg")
    os.mkfifo(root / "a" / "pipe.jpg")
    with open(root / "b" / "large.jpg", "wb") as file:
        file.truncate(2**40)
    report, packed = pack(root, tmp_path / "out")
    again, outside = "another name of", "a link that leads out of the source"
    expected = {
        "a/up": again,
        "b/loop": again,
        "a/self": "cannot be read: Too many levels of symbolic links",
        "a/gone.jpg": "cannot be read: No such file",
        "a/zero.jpg": outside,
        "a/leak.jpg": outside,
        "a/again.jpg": again,
        "a/b": again,
        "a/pipe.jpg": "neither a regular file nor a folder",
        "b/large.jpg": "larger than a photo: 1,048,576 MiB",
    }
    reasons = dict(report.skipped)
    one_of_two = reasons.keys() & {"b/2.jpg", "b/hard.jpg"}
    assert len(one_of_two) == 1
    assert reasons.keys() - one_of_two == expected.keys()
    assert all(reasons[name].startswith(why) for name, why in expected.items())
    assert packed.labels.tolist() == [0, 1]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    save_photos(tmp_path / "p", "a/1.jpg", "b/2.jpg")
    listdir = os.listdir

    def refuse_b(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse_b)
    report, _ = pack(tmp_path / "p", tmp_path / "out")
    assert report.skipped == (("b", "cannot be read: Permission denied"),)


def test_names_that_are_not_utf8_or_move_the_cursor_are_escaped(tmp_path):
    folder = os.fsencode(tmp_path / "p")
    save_photos(tmp_path / "p", "BMW/1.jpg")
    os.makedirs(folder + b"/Citro\xebn")
    for name in [b"/Citro\xebn/2.jpg", b"/Citro\xebn/\x1b[31m\xe2\x80\xae.jpg"]:
        shutil.copy(folder + b"/BMW/1.jpg", folder + name)
    (tmp_path / "p" / "BMW" / "\r\x07.jpg").write_text("no photo")
    report, packed = pack(tmp_path / "p", tmp_path / "out")
    assert packed.classes == ("BMW", r"Citro\xebn")
    assert report.skipped == ((r"BMW/\r\x07.jpg", "not an image"),)
    assert report.n == 3


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    for form, split in [("NFC", "train"), ("NFD", "test")]:
        name = unicodedata.normalize(form, "Škoda")
        save_photos(tmp_path / "p", f"{split}/{name}/{form}.jpg", f"{split}/bmw/1.jpg")
    report, packed = pack(tmp_path / "p", tmp_path / "out")
    assert report.classes == ("bmw", "Škoda")
    assert packed.labels.tolist() == [0, 1, 1, 0]


def test_classes_that_differ_in_case_alone_are_noted(tmp_path):
    save_photos(tmp_path / "p", "BMW/1.jpg", "bmw/2.jpg", "Audi/3.jpg")
    report, _ = pack(tmp_path / "p", tmp_path / "out")
    assert report.notes == ("classes of nearly the same name: BMW, bmw",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC, convert it to JPEG"),
        (b"<!DOCTYPE html><p>not found", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_only_the_announced_formats_are_opened(tmp_path, data, reason, monkeypatch):
    def refuse(*arguments, **options):
        pytest.fail("Ghostscript was called")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", refuse)
    save_photo(tmp_path / "p" / "good.jpg")
    (tmp_path / "p" / "bad.jpg").write_bytes(data)
    report, _ = pack(tmp_path / "p", tmp_path / "out")
    ((name, said),) = report.skipped
    assert name == "bad.jpg"
    assert said.startswith(f"not an image: {reason}")


def test_too_many_pixels_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_PIXELS", 40 * 30)
    monkeypatch.setattr(photos, "LARGE", 1)
    save_photo(tmp_path / "p" / "a.png", 0, (41, 30))
    save_photo(tmp_path / "p" / "b.png", 1, (40, 30))
    save_photo(tmp_path / "p" / "c.jpg", 2, (128, 128))  # decoded at a quarter
    report, packed = pack(tmp_path / "p", tmp_path / "out")
    ((name, reason),) = report.skipped
    assert (name, reason[:16], len(packed)) == ("a.png", "too large: 41x30", 2)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """The bytes of a PNG of these chunks: a kind and data each."""
    parts = [
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", ["grey.pgm", "big_endian.tif", "transparent.png"])
def test_unusual_greys_are_scaled_and_not_clipped(tmp_path, name):
    grey = np.full((32, 32), 100 * 257, ">u2")
    (tmp_path / "p").mkdir()
    path = tmp_path / "p" / name
    if name == "grey.pgm":
        path.write_bytes(b"P5 32 32 65535\n" + grey.tobytes())
    elif name == "transparent.png":
        header = struct.pack(">IIBBBBB", 32, 32, 16, 0, 0, 0, 0)
        rows = compress(b"".join(b"\0" + row.tobytes() for row in grey))
        transparent = (b"tRNS", bytes([0, 5]))
        path.write_bytes(
            png((b"IHDR", header), transparent, (b"IDAT", rows), (b"IEND", b""))
        )
    else:
        fields = [(256, 3, 32), (257, 3, 32), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
        fields += [(273, 4, 110), (278, 3, 32), (279, 4, 2048)]
        data = struct.pack(">2sHIH", b"MM", 42, 8, len(fields))
        for tag, kind, value in fields:
            layout = ">HHIHH" if kind == 3 else ">HHII"
            values = (value, 0) if kind == 3 else (value,)
            data += struct.pack(layout, tag, kind, 1, *values)
        path.write_bytes(data + bytes(4) + grey.tobytes())
    _, packed = pack(tmp_path / "p", tmp_path / "out")
    assert_colour(packed.images, (100, 100, 100))


def test_integers_of_unknown_range_are_left_out(tmp_path):
    save_photo(tmp_path / "p" / "good.jpg")
    levels = np.full((32, 32), 70_000, np.int32)
    Image.fromarray(levels).save(tmp_path / "p" / "deep.tif")
    report, _ = pack(tmp_path / "p", tmp_path / "out")
    assert "integers of unknown range: 70000..70000" in dict(report.skipped)["deep.tif"]


def test_a_photo_that_vanishes_is_named(tmp_path):
    save_photos(tmp_path / "p", "1.png", "2.png")

    def remove_other(image, size):
        (tmp_path / "p" / "2.png").unlink(missing_ok=True)
        return squash(image, size)

    report, _ = pack(tmp_path / "p", tmp_path / "out", fit=remove_other, workers=1)
    assert report.n + len(report.skipped) == 2
    assert set(report.skipped) <= {("2.png", "No such file or directory")}


KILLED = """
import os, sys
from ddpm_core.datasets.photos.prepare import prepare
from ddpm_core.datasets.photos.prepare import squash

n = iter(range(99))

def counted(image, size):
    if next(n) == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return squash(image, size)

prepare(sys.argv[1], sys.argv[2], size=16, fit=counted, workers=1, progress=False)
"""


@pytest.mark.parametrize("at", [0, 5])
def test_a_killed_prepare_leaves_the_old_folder_and_is_cleared_up(tmp_path, at):
    save_photos(tmp_path / "a", *(f"{i}.png" for i in range(3)))
    save_photos(tmp_path / "b", *(f"{i}.png" for i in range(8)))
    _, old = pack(tmp_path / "a", tmp_path / "caches" / "out")
    command = [
        sys.executable,
        "-c",
        KILLED,
        tmp_path / "b",
        tmp_path / "caches" / "out",
    ]
    killed = subprocess.run([*command, str(at)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert PackedImages.open(tmp_path / "caches" / "out").sha256 == old.sha256
    assert pack(tmp_path / "b", tmp_path / "caches" / "out")[0].n == 8
    assert [path.name for path in (tmp_path / "caches").iterdir()] == ["out"]


def test_a_second_prepare_into_the_same_folder_is_refused(tmp_path, mixed):
    def meanwhile(image, size):
        with pytest.raises(BlockingIOError, match="another process is writing"):
            pack(mixed, tmp_path / "out")
        return squash(image, size)

    report, packed = pack(mixed, tmp_path / "out", fit=meanwhile, workers=1)
    assert report.n == len(packed) == 4


@pytest.fixture
def boxed(tmp_path):
    """Stanford Cars of three photos: red left, green middle, blue right, and boxes."""
    pytest.importorskip("scipy")
    from photo_samples import save_stanford_labels

    cars = tmp_path / "stanford_cars"
    (cars / "cars_train").mkdir(parents=True)
    names = ["00001.png", "00002.png", "00003.png", "00004.png"]
    for name in names:
        banded((120, 60), RED, GREEN, BLUE).save(cars / "cars_train" / name)
    boxes = [(41, 1, 80, 60), (81, 11, 121, 60), (50, 40, 50, 20), ((), 1, 9, 9)]
    save_stanford_labels(cars / "cars_train_annos.mat", names, [1] * 4, boxes)
    return cars


def test_photos_are_cropped_to_their_boxes_and_a_margin(tmp_path, boxed):
    report, packed = pack(boxed, tmp_path / "tight", margin=0)
    assert len(packed) == 1
    assert_colour(packed.images[0, :, 1:-1], GREEN)
    assert read_meta(tmp_path / "tight")["margin"] == 0
    assert "cropped: to the boxes of the cars, 0 pixels around them" in str(report)
    _, wide = pack(boxed, tmp_path / "wide", margin=40)  # as far as the photo goes
    assert_colour(wide.images[0, :, 0], RED)
    assert_colour(wide.images[0, :, -1], BLUE)
    _, whole = pack(boxed, tmp_path / "whole")
    assert len(whole) == 4 and "margin" not in read_meta(tmp_path / "whole")
    np.testing.assert_array_equal(whole.images[0], wide.images[0])


def test_each_bad_box_is_named_in_one_line(tmp_path, boxed):
    report, _ = pack(boxed, tmp_path / "out", margin=16)
    assert dict(report.skipped) == {
        "cars_train/00002.png": "a bad box: columns 81 to 121, rows 11 to 60, in a "
        "photo of 120x60",
        "cars_train/00003.png": "a bad box: columns 50 to 50, rows 40 to 20, in a "
        "photo of 120x60",
        "cars_train/00004.png": "no box: the .mat file has none for it",
    }


def test_a_crop_that_is_too_small_is_named(tmp_path, boxed):
    with pytest.raises(ValueError, match="too small: 40x60, the shorter .* 50 pixels"):
        pack(boxed, tmp_path / "out", margin=0, min_side=50)


@pytest.mark.parametrize("scale", [1, 6])
def test_a_box_is_cut_at_the_scale_of_the_stored_photo(tmp_path, scale):
    """JPEGs are decoded at a reduced scale, but not where a box is to be found."""
    pytest.importorskip("scipy")
    from photo_samples import save_stanford_labels

    (tmp_path / "cars_train").mkdir()
    wide, high = 120 * scale, 60 * scale
    photo = banded((wide, high), RED, GREEN, BLUE)
    photo.save(tmp_path / "cars_train" / "1.jpg", quality=95, subsampling=0)
    boxes = [(wide // 3 + 1, 1, wide // 3 * 2, high)]
    save_stanford_labels(tmp_path / "cars_train_annos.mat", ["1.jpg"], [1], boxes)
    _, packed = pack(tmp_path, tmp_path / "out", margin=0)
    assert_colour(packed.images[0, :, 1:-1], GREEN)


def test_frames_need_not_be_square(tmp_path):
    (tmp_path / "p").mkdir()
    banded((90, 60), RED, GREEN, BLUE).save(tmp_path / "p" / "a.png")
    report, packed = pack(tmp_path / "p", tmp_path / "s", size=(16, 24))
    assert packed.images.shape == (1, 16, 24, 3) and packed.size == (16, 24)
    assert "1 images of 16x24 (height x width)" in str(report)
    assert_colour(packed.images[0, :, 1:7], RED)
    assert_colour(packed.images[0, :, -7:-1], BLUE)
    _, cropped = pack(tmp_path / "p", tmp_path / "c", size=(24, 12), fit=centre_crop)
    assert_colour(cropped.images[0, :, 1:-1], GREEN)  # a third of the width is kept
    assert PackedImages.open(tmp_path / "c").size == (24, 12)


def test_grey_is_how_bright_a_colour_is(tmp_path):
    (tmp_path / "p").mkdir()
    banded((60, 60), (255, 0, 0), (0, 255, 0), (0, 0, 255)).save(
        tmp_path / "p" / "a.png"
    )
    report, packed = pack(tmp_path / "p", tmp_path / "out", channels=1)
    assert packed.images.shape == (1, 16, 16, 1) and packed.channels == 1
    seen = packed.images[0, 8, [2, 8, 13], 0]  # ITU-R 601: 0.299, 0.587, 0.114
    np.testing.assert_allclose(seen, [76, 150, 29], atol=2)
    assert "images of 16x16 grey" in str(report)
    with pytest.raises(ValueError, match="channels must be 3, or 1 for grey, got 2"):
        pack(tmp_path / "p", tmp_path / "out", channels=2)
