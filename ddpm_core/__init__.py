"""Denoising diffusion in small, readable pieces: the library of the book.

The process:    schedules, diffusion, samplers
Networks:       unet, dit, attention, compiling
Conditions:     conditioning, tokens, clip, published_clip, latent
Further views:  score, mixtures, editing, distillation
Loop and judge: training, metrics
Trained models: config, weights, models
Everywhere:     types, checking, values, options

One door further: `datasets` (toy cars, photos), `neighbours` (VAE, GAN, classifier),
`display` (figures, sliders) and `workshop` (runs, cards, commands).
A sampler knows a model only as a function `denoise(x_t, t) -> x0_hat`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ddpm-core")  # pyproject.toml has it
except PackageNotFoundError:  # imported from a folder, without an installation
    __version__ = "unknown"
