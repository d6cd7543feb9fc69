"""The latents of a run's images, computed once and kept. Chapter 11."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm_core.datasets import to_float
from ddpm_core.latent import LatentScaler

ENCODED = 1024  # images that become latents at once


def encoded(images: np.ndarray, latent: LatentScaler, *, flip: bool) -> Tensor:
    """The latents of all images, (1, n, c, h, w), or (2, ...) with the mirrored.

    `images`: uint8 (n, h, w, c). The result is on the autoencoder's device.
    """
    device, parts = latent.mean.device, []
    for i in range(0, len(images), ENCODED):
        x = to_float(images[i : i + ENCODED]).to(device)
        ways = [x, x.flip(-1)] if flip else [x]
        parts.append(torch.stack([latent.encode(way) for way in ways]))
    return torch.cat(parts, dim=1)


def cached(
    folder: Path, images: np.ndarray, latent: LatentScaler, *, flip: bool
) -> Tensor:
    """What `encoded` returns, read from `folder` if it was computed before.

    The file's name is a hash of the images and of the encoder, so that a change of
    either makes another file; a better decoder does not.
    """
    path = folder / f"{_key(images, latent, flip)}.safetensors"
    if path.exists():
        return load_file(path)["latents"].to(latent.mean.device)
    latents = encoded(images, latent, flip=flip)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({"latents": latents.cpu().contiguous()}, partial)
    partial.replace(path)
    return latents


def _key(images: np.ndarray, latent: LatentScaler, flip: bool) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images))
    for name, tensor in sorted(latent.state_dict().items()):
        if ".decoder." in name:
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16] + ("-mirrored" if flip else "")
