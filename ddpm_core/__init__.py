"""Denoising diffusion in small, readable pieces: the library of the book.

One idea a module: `schedules` (how much signal is left at time t), `diffusion`
(noising, targets, the loss), `samplers` (from noise to data), `unet` (the network),
`training`, `datasets`, `metrics`, `plots` and `widgets`. Samplers know a model only as
a function `denoise(x_t, t) -> x0_hat`.
"""

__version__ = "0.1.0"
