import numpy as np
import pytest
from photo_samples import save_photo, save_photos, zip_folder
from PIL import Image

from ddpm_core.datasets.packed import UNLABELLED, PackedImages, read_meta
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
