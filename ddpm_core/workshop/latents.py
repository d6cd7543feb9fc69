"""The latents of a run's images, computed once and kept. Chapter 11."""

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
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
    either makes another file; a better decoder does not. A damaged file is replaced,
    and where none can be written the latents serve this process alone.
    """
    path = folder / f"{_key(images, latent, flip)}.safetensors"
    known = _read(path)
    if known is not None:
        return known.to(latent.mean.device)
    latents = encoded(images, latent, flip=flip)
    partial = path.with_suffix(f".{secrets.token_hex(4)}.partial")  # each writer's own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stored = latents.cpu().contiguous()
        save_file({"latents": stored}, partial, metadata={"sha256": _digest(stored)})
        partial.replace(path)
    except (OSError, SafetensorError):  # the disk is full, or not ours
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return latents


def _read(path: Path) -> Tensor | None:
    """Read stored latents; None where there are none, or where they are damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            latents, metadata = file.get_tensor("latents"), file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    found = _digest(latents)  # files of earlier versions hold no hash
    return latents if metadata.get("sha256", found) == found else None


def _digest(latents: Tensor) -> str:
    return hashlib.sha256(latents.numpy()).hexdigest()


def _key(images: np.ndarray, latent: LatentScaler, flip: bool) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images))
    for name, tensor in sorted(latent.state_dict().items()):
        if ".decoder." in name:
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16] + ("-mirrored" if flip else "")
