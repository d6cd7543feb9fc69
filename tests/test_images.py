import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_core.datasets import to_float, to_uint8
from ddpm_core.datasets.images import save_grid, save_strip


def test_bytes_come_back(generator):
    stored = torch.randint(256, (3, 4, 5, 3), generator=generator, dtype=torch.uint8)
    images = to_float(stored)
    assert images.shape == (3, 3, 4, 5)
    assert (images.min() >= -1) and (images.max() <= 1)
    torch.testing.assert_close(to_uint8(images), stored)
    torch.testing.assert_close(to_float(stored.numpy()), images)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.random.default_rng(0).random((2, 8, 8, 3)), "float64"),
        (torch.rand(2, 8, 8, 3), "float32"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"uint8 \(2, 3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \(8, 8, 3\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"uint8 \(2, 8, 8, 4\)"),
        (np.zeros((2, 8, 8, 3), np.int64), "int64"),
        (np.zeros((2, 8, 8, 3), bool), "bool"),
    ],
)
def test_what_is_not_stored_images_is_refused(wrong, got):
    with pytest.raises(ValueError, match=f"must be bytes, uint8 .*got {got}"):
        to_float(wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_there_is_no_picture_of_what_is_not_finite(tmp_path, value):
    images = torch.zeros(3, 3, 8, 8)
    images[1, 2, 0, 0] = value
    with pytest.raises(ValueError, match="1 of 3 images hold NaN or infinity"):
        to_uint8(images)
    with pytest.raises(ValueError, match="1 of 3 images hold NaN or infinity"):
        save_grid(tmp_path / "a.png", images)
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        save_strip(tmp_path / "a.png", [images] * 3, stages=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8).int()])
def test_what_has_no_pixels_in_range_is_refused(wrong):
    with pytest.raises(ValueError, match="must be floating-point"):
        to_uint8(wrong)


def test_what_lies_outside_is_clipped():
    images = torch.tensor([-5.0, 0.0, 5.0]).view(1, 3, 1, 1)
    assert to_uint8(images).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("name", ["cars", "cars.xyz", "cars.png.txt"])
def test_a_name_that_is_no_picture_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in one of \.png, .*got .*cars"):
        save_grid(tmp_path / name, torch.zeros(1, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_replaces_the_one_before(tmp_path):
    save_grid(tmp_path / "deep" / "a.png", torch.zeros(4, 3, 8, 8))
    save_grid(tmp_path / "deep" / "a.png", torch.ones(1, 3, 8, 8))
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert np.asarray(image).min() == 255
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]
