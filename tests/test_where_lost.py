"""Photos denoised from t: nothing is lost from 0, and from T they are samples."""

import torch

from ddpm_core.datasets import draw_toy_cars, to_float
from ddpm_core.models import load_model
from ddpm_core.samplers import last
from ddpm_core.workshop.where_lost import denoised_from


def test_images_are_themselves_at_0_and_samples_from_T():
    model = load_model("toy-cars-32")
    images = to_float(draw_toy_cars(2, seed=3).images)
    g = torch.Generator()
    assert torch.equal(denoised_from(model, images, 0, 4, g), images)
    noise = torch.randn(images.shape, generator=g.manual_seed(5))
    sampled = last(model.sample(noise, 4))
    again = denoised_from(model, images, 1000, 4, g.manual_seed(5))
    torch.testing.assert_close(again, sampled, atol=0.05, rtol=0)
    near = denoised_from(model, images, 100, 20, g)
    far = denoised_from(model, images, 700, 20, g)
    errors = [(x - images).square().mean() for x in (near, far)]
    assert errors[0] < 0.01 < errors[1]
