"""How the KL autoencoder is trained and measured, and its card written. Chapter 11."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn
from tqdm import tqdm

from ddpm_core import metrics
from ddpm_core.checking import check_count
from ddpm_core.datasets.atomic import written_folder
from ddpm_core.datasets.images import save_grid, to_float
from ddpm_core.datasets.packed import PackedImages
from ddpm_core.datasets.toy_cars import ATTRIBUTES, draw_toy_cars
from ddpm_core.diffusion import add_noise
from ddpm_core.latent import (
    LatentImages,
    LatentScaler,
    Perceptual,
    autoencoder_loss,
    load_latent,
    lpips_distance,
    perceptual_distance,
)
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.neighbours.classifier import load_classifier
from ddpm_core.neighbours.vae import VAE, Encoding, VAEConfig, with_decoder_blocks
from ddpm_core.options import one_of
from ddpm_core.training import shuffled, train, warmup_cosine
from ddpm_core.types import Images, Times
from ddpm_core.weights import command_line, hardware, read_card, save_weights
from ddpm_core.workshop.cards import FILES, card_text
from ddpm_core.workshop.evaluation import imagenet_extractor
from ddpm_core.workshop.side.adversarial import (
    Critique,
    FeatureCritic,
    efficientnet_stages,
)

CONFIG = VAEConfig(channels=(64, 128), latent=4, spatial=True, blocks=1, patch=2)
"""A quarter of the side, 4 channels: 32x32 to 8x8, and 64x64 to 16x16."""

RESIZED = VAEConfig(channels=(64,), latent=3, spatial=True, resized=True)
"""Half the side: the latents are the images themselves, made smaller."""

ENCODERS = {"learned": CONFIG, "resized": RESIZED}

SHOWN = 16  # images in the card's picture, each above what is left of it


def classifier_distance() -> Perceptual:
    """The perceptual distance on the stages of the toy-car classifier. Chapter 11."""
    stages = load_classifier().trunk[:-2]  # without the mean over positions

    def distance(x: Images, y: Images):
        return perceptual_distance(stages, x, y)

    return distance


def efficientnet_distance(adversarial: float = 0.0, start: int = 0) -> Perceptual:
    """The perceptual distance on EfficientNet-Lite1, and a critic on it. Chapter 11."""
    stages = efficientnet_stages().to(memory_format=torch.channels_last)
    critic = FeatureCritic().to(memory_format=torch.channels_last)
    return Critique(stages, critic, weight=adversarial, start=start)


PERCEPTUAL = {
    "classifier": classifier_distance,
    "efficientnet": efficientnet_distance,
    "lpips": lpips_distance,
}


class Finishing(nn.Module):
    """An autoencoder whose decoder sees what a diffusion model makes of noised latents.

    `forward(x, generator)`, as `VAE.forward`: latents of x are noised to a random t in
    0..noised_to and denoised by one call, which blurs them; at t = 0 they stay as they
    are. With these the decoder learns to draw what the model cannot. `noised_to` should
    lie well above the t_end at which sampling stops: what a model draws has less detail
    than what it leaves of a photo. Raises ValueError for a model of other latents, and
    for a noised_to that is not in 1..T. Chapter 14.
    """

    def __init__(self, latent: LatentScaler, model: DiffusionModel, noised_to: int):
        super().__init__()
        if model.shape != latent.shape:
            raise ValueError(
                f"latents of shape {latent.shape} are finished after a model that "
                f"draws them, got one that draws {model.shape}"
            )
        check_count("noised_to", noised_to, 1, model.schedule.T)
        self.latent, self.noised_to = latent, noised_to
        self.schedule, self.denoise = model.schedule, model.denoiser()

    def forward(self, x: Images, generator: torch.Generator) -> tuple[Images, Encoding]:
        latent = self.latent
        z = self.blurred(latent.encode(x), generator)
        encoding = latent.autoencoder.encode(x)
        return latent.autoencoder.decode(latent.unscaled(z)), encoding

    @torch.no_grad()
    def blurred(self, z: LatentImages, generator: torch.Generator) -> LatentImages:
        """Noise each latent to its own t in 0..noised_to, and denoise it."""
        t = torch.randint(self.noised_to + 1, (len(z),), generator=generator)
        return self.denoised(z, t, generator)

    @torch.no_grad()
    def denoised(
        self, z: LatentImages, t: Times, generator: torch.Generator
    ) -> LatentImages:
        """Noise each latent to its t, and denoise it by one call."""
        noise = torch.randn(z.shape, generator=generator)
        z_t = add_noise(self.schedule, z, t, noise)
        untouched = (t == 0).view(-1, 1, 1, 1)
        return torch.where(untouched, z, self.denoise(z_t, t.clamp(min=1)))


def measure(latent: LatentScaler, images: Images, toy_cars: bool) -> dict[str, object]:
    """What is left of images that it was not trained on, after the way there and back.

    `psnr` in dB, of values in [-1, 1]. For toy cars also the Frechet distance of the
    reconstructions to the images, on the classifier's features, and the share of them
    in which it reads what was there.
    """
    rebuilt = latent.decode(latent.encode(images))
    errors = (rebuilt - images).square().flatten(1).mean(1)
    measured = {
        "images": len(images),
        "psnr": round((10 * (4 / errors).log10()).mean().item(), 2),
        "latent mean": [round(v, 3) for v in latent.mean.tolist()],
        "latent std": [round(v, 3) for v in latent.std.tolist()],
    }
    if toy_cars:
        judge = load_classifier()
        there, left = (judge.predict(x).attributes for x in (images, rebuilt))
        shares = (there == left).double().mean(0).tolist()
        measured["frechet"] = round(
            metrics.frechet_distance(judge.features(images), judge.features(rebuilt)), 3
        )
        measured["kept"] = dict(zip(ATTRIBUTES, shares, strict=True))
    return measured


def photo_distances(latent: LatentScaler, images: Images) -> dict[str, object]:
    """Frechet distances of reconstructed photos, on `imagenet_extractor`'s features.

    To their images; and, of half of the images to the other half, as they are (`floor`)
    and rebuilt (`rebuilt floor`), below which no samples in these latents can be
    expected. Each of n = half of the images. Raises as `imagenet_extractor` does.
    """
    ruler, n = imagenet_extractor(), len(images) // 2
    rebuilt = latent.decode(latent.encode(images))
    real, other = ruler.features(images[: 2 * n]).split(n)
    left, other_left = ruler.features(rebuilt[: 2 * n]).split(n)
    return {
        "features": ruler.name,
        "n": n,
        "frechet": round(metrics.frechet_distance(real, left), 2),
        "floor": round(metrics.frechet_distance(real, other), 2),
        "rebuilt floor": round(metrics.frechet_distance(real, other_left), 2),
    }


def finished_distance(
    finishing: Finishing, images: Images, t_end: int
) -> dict[str, object]:
    """As the 'rebuilt floor' of `photo_distances`, but noised to t_end and denoised."""
    ruler, latent, n = imagenet_extractor(), finishing.latent, len(images) // 2
    first, second = images[:n], images[n : 2 * n]
    generator = torch.Generator().manual_seed(0)
    z = torch.cat(
        [
            finishing.denoised(part, torch.full((len(part),), t_end), generator)
            for part in latent.encode(second).split(128)
        ]
    )
    real, finished = ruler.features(first), ruler.features(latent.decode(z))
    return {"finished floor": round(metrics.frechet_distance(real, finished), 2)}


def main(
    out: Annotated[Path, typer.Option(help="folder to write weights and card to")],
    data: Annotated[
        str, typer.Option(help="'toy-cars' or the folder of a packed data set")
    ] = "toy-cars",
    size: Annotated[
        int, typer.Option(min=8, max=4096, help="side of the images in pixels")
    ] = 32,
    cars: Annotated[
        int, typer.Option(min=2, max=10**7, help="toy cars drawn to train on")
    ] = 30_000,
    passes: Annotated[
        int, typer.Option(min=0, max=10**6, help="passes over the images")
    ] = 6,
    batch: Annotated[int, typer.Option(min=1, max=10**6, help="images a step")] = 16,
    lr: Annotated[
        float, typer.Option(min=1e-9, max=10, help="peak learning rate")
    ] = 1e-3,
    kl_weight: Annotated[
        float, typer.Option(min=0, max=1e6, help="weight of the KL")
    ] = 3e-3,
    perceptual: Annotated[
        str,
        typer.Option(help="classifier (toy cars), efficientnet, lpips (photos), none"),
    ] = "classifier",
    perceptual_weight: Annotated[
        float, typer.Option(min=0, max=1e6, help="its weight")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="seed of cars, weights and order")
    ] = 0,
    test: Annotated[
        int, typer.Option(min=16, max=10**6, help="held-out images to measure on")
    ] = 2_000,
    adversarial: Annotated[
        float,
        typer.Option(
            min=0,
            max=1e6,
            help="pull of a critic, as a fraction of the perceptual distance's",
        ),
    ] = 0.0,
    adversarial_start: Annotated[
        int, typer.Option(min=0, help="steps before it begins")
    ] = 500,
    mirrored: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="share of the images that are mirrored, at random"
        ),
    ] = 0.0,
    refine: Annotated[
        str,
        typer.Option(help="weights to start from; their encoder stays as it is"),
    ] = "",
    decoder_blocks: Annotated[
        int,
        typer.Option(min=0, max=100, help="blocks a level of the decoder; 0: as it is"),
    ] = 0,
    encoder: Annotated[
        str, typer.Option(help="learned, or resized: half the side, not trained")
    ] = "learned",
    finishes: Annotated[
        str,
        typer.Option(
            help="diffusion model of these latents, whose last steps the decoder takes"
        ),
    ] = "",
    noised_to: Annotated[
        int, typer.Option(help="timestep up to which it learns them", min=0)
    ] = 0,
    t_end: Annotated[
        int, typer.Option(help="timestep from which it takes them in sampling", min=0)
    ] = 0,
) -> None:
    """Train a KL autoencoder, measure it, write its weights and card."""
    options = dict(locals())
    one_of("encoder", encoder, ENCODERS)
    if perceptual not in (*PERCEPTUAL, "none"):
        raise typer.BadParameter(f"choose {', '.join(PERCEPTUAL)} or none")
    if perceptual == "classifier" and data != "toy-cars":
        raise typer.BadParameter(
            f"the classifier knows toy cars, not {data}: choose --perceptual "
            "efficientnet, lpips or none"
        )
    if refine and encoder != "learned":
        raise typer.BadParameter("--encoder has no effect: --refine keeps its own")
    if adversarial and perceptual != "efficientnet":
        raise typer.BadParameter("a critic needs --perceptual efficientnet")
    if finishes and not (refine and 0 < t_end <= noised_to):
        raise typer.BadParameter(
            "--finishes needs --refine, and a --t-end in 1..--noised-to"
        )
    if not finishes and (noised_to or t_end):
        raise typer.BadParameter("--noised-to and --t-end belong to --finishes")
    with written_folder(out, names=FILES) as new:
        torch.manual_seed(seed)
        latent = load_latent(refine) if refine else None
        if latent and latent.autoencoder.config.size != size:
            raise typer.BadParameter(
                f"--refine {refine} is for --size {latent.autoencoder.config.size}, "
                f"got {size}"
            )
        earlier = read_card(refine)["commands"] if refine else []
        net = (
            latent.autoencoder if refine else VAE(replace(ENCODERS[encoder], size=size))
        )
        if decoder_blocks:
            net = with_decoder_blocks(net, decoder_blocks)
        net = net.to(memory_format=torch.channels_last)
        net.encoder.requires_grad_(not refine)
        net.decoder.requires_grad_(True)
        trained = [p for p in net.parameters() if p.requires_grad]
        distance = None
        if perceptual != "none":
            critic = {"adversarial": adversarial, "start": adversarial_start}
            distance = PERCEPTUAL[perceptual](**(critic if adversarial else {}))
        generator = torch.Generator().manual_seed(seed)
        seen = net
        if refine:
            latent.autoencoder = net
        if finishes:
            seen = Finishing(latent, load_model(finishes), noised_to)
        images, unseen = load_images(data, size, cars, test, seed)

        def loss(_: VAE, x: Images):
            if mirrored:
                chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < mirrored
                x = torch.where(chosen, x.flip(-1), x)
            return autoencoder_loss(
                seen,
                x.contiguous(memory_format=torch.channels_last),
                kl_weight=kl_weight,
                perceptual=distance,
                perceptual_weight=perceptual_weight,
                generator=generator,
            )

        steps = passes * (len(images) // batch)
        order = shuffled(len(images), passes=passes, batch=batch, seed=seed)
        start = time.perf_counter()
        training = train(
            net,
            loss,
            ((to_float(images[rows.numpy()]),) for rows in order),
            torch.optim.AdamW(trained, lr, weight_decay=0.0, fused=True),
            lr=warmup_cosine(lr, warmup=200, total=steps, end=0.01),
        )
        bar = tqdm(training, total=steps, unit="step", mininterval=1)
        for done in bar:
            if done.step % 20 == 0:
                bar.set_postfix(loss=f"{done.loss.item():.4f}")
        seconds = round(time.perf_counter() - start)
        if not refine:
            latent = LatentScaler(net).fit(to_float(images[:5000]))
        latent.eval()
        latent.requires_grad_(False).half().float()  # from here on as it is stored
        card = {
            "name": out.name,
            "kind": "autoencoder",
            "config": net.config.to_dict(),
            "parameters": sum(p.numel() for p in net.parameters()),
            "commands": [*earlier, command_line("train-autoencoder", options)],
            **({"t_end": t_end} if t_end else {}),
            "seed": seed,
            "data": data,
            "images": len(images),
            "images seen": steps * batch,
            "hardware": hardware(),
            "seconds": seconds,
            "measured": measure(latent, unseen, data == "toy-cars"),
        }
        if perceptual == "efficientnet":
            card["measured"] |= photo_distances(latent, unseen)
            if finishes:
                card["measured"] |= finished_distance(seen, unseen, t_end)
        save_weights(new, latent.state_dict(), card)
        first, half = unseen[:SHOWN], SHOWN // 2
        left = latent.decode(latent.encode(first))
        rows = [first[:half], left[:half], first[half:], left[half:]]
        save_grid(new / "reconstructions.webp", torch.cat(rows), ncols=half)
        (new / "README.md").write_text(card_text(card), encoding="utf-8")
        print(card_text(card))


def load_images(
    data: str, size: int, cars: int, test: int, seed: int
) -> tuple[np.ndarray, Images]:
    """Images to train on, uint8 (n, h, w, 3), and others to measure on."""
    if data == "toy-cars":
        drawn, other = (
            draw_toy_cars(n, size=size, seed=seed + i).images
            for i, n in enumerate((cars, test))
        )
        return drawn, to_float(other)
    packed = PackedImages.open(data)
    if packed.size != size or len(packed) < 2 * test:
        raise ValueError(
            f"{data} holds {len(packed)} images of {packed.size} pixels: wanted are "
            f"--size {packed.size} and at most --test {len(packed) // 2}"
        )
    order = torch.randperm(len(packed), generator=torch.Generator().manual_seed(seed))
    rows = order.numpy()
    return packed.images[np.sort(rows[test:])], to_float(packed.images[rows[:test]])
