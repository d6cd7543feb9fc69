"""How fast ddpm_core is beside its peers, as ratios measured in one run.

    python tests/benchmarks/compare.py            # what a CPU can do in a few minutes
    python tests/benchmarks/compare.py --rounds 9
    python tests/benchmarks/compare.py --device cuda --published unet.py

Needs the extra 'bench'; a peer that is not installed is left out, and named. Each
network has as many parameters as ours (within 8 %), the same batch, optimiser and
memory format; on a GPU each is compiled and runs in bf16, its kernels launched as CUDA
graphs. `--published` names the file of the article's network, ddpm/unet.py of its
repository, which runs as published: fp32, not compiled. Rounds go through all networks
in turn, so that a slow moment of the machine hits all alike; the median round counts.
"""

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_core.compiling import compiled
from ddpm_core.diffusion import V, make_denoiser
from ddpm_core.samplers import ddim_step, last, sample, spaced_times
from ddpm_core.schedules import cosine_schedule
from ddpm_core.unet import UNet, UNetConfig
from ddpm_core.workshop.presets import SMALL_UNET

Forward = Callable[[Tensor, Tensor], Tensor]

WARMING = 3  # rounds that do not count: compiling, and recording graphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--dry", action="store_true", help="one small round, to try it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_default_device(options.device)
    torch.backends.cudnn.benchmark = True
    where = f"{options.threads} threads, {platform.machine()}"
    if options.device == "cuda":
        where = torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {where}")
    print("\n| training step | parameters | images/s | ours is |")
    print("| --- | --- | --- | --- |")
    large = 64 if options.device == "cuda" else 4
    published = options.published
    if options.dry:
        training("small, 32x32", SMALL_UNET, 32, 2, 1, warming=0)
        return
    training("small, 32x32", SMALL_UNET, 32, 32, options.rounds)
    training("capstone, 64x64", UNetConfig(), 64, large, options.rounds, published)
    sampling(options.rounds)


def training(
    name: str,
    config: UNetConfig,
    side: int,
    n: int,
    rounds: int,
    published: Path | None = None,
    *,
    warming: int = WARMING,
) -> None:
    """Print images a second of a training step of ours and of each peer's."""
    ours = UNet(config)
    wanted = count(ours)
    networks = {"ddpm_core": (ours, ours)}
    peers = {
        "diffusers": lambda: diffusers_like(wanted, side),
        "denoising-diffusion-pytorch": lambda: peer_like(wanted),
    }
    for peer, make in peers.items():
        try:
            networks[peer] = make()
        except ImportError as error:
            print(f"| {name}: {peer} | left out: {error} | | |")
    x = torch.randn(n, 3, side, side).to(memory_format=torch.channels_last)
    steps = {k: step(net, forward, x) for k, (net, forward) in networks.items()}
    if published:
        networks["as published"] = net, forward = published_network(published)
        steps["as published"] = step(net, forward, x.contiguous(), as_published=True)
    times = {k: [] for k in steps}
    for round_ in range(rounds + warming):
        for k, run in steps.items():
            seconds = clock(run)
            if round_ >= warming:  # before that it is compiled
                times[k].append(seconds)
    speed = {k: n / statistics.median(t) for k, t in times.items()}
    for k, (net, _) in networks.items():
        ratio = speed["ddpm_core"] / speed[k]
        row = f"{name}: {k} | {count(net):,} | {speed[k]:.2f} | {ratio:.2f} times"
        print(f"| {row} as fast |", flush=True)


def step(
    net: nn.Module, forward: Forward, x: Tensor, *, as_published: bool = False
) -> Callable[[], None]:
    """One step of training: forward, backward, AdamW."""
    net.train()
    on_gpu = x.device.type == "cuda" and not as_published
    if not as_published:
        net.to(memory_format=torch.channels_last)
    if on_gpu:
        forward = fast(forward)
    optimizer = torch.optim.AdamW(net.parameters(), fused=not as_published)
    t = torch.randint(1, 500, (len(x),))

    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=on_gpu):
            predicted = forward(x, t)
        (predicted.float() - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def fast(forward: Forward) -> Forward:
    """Compile ours as `ddpm train --graphs` does, a peer's as PyTorch proposes."""
    if isinstance(forward, UNet):
        return compiled(forward, graphs=True)
    return torch.compile(forward, mode="reduce-overhead")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def nearest_in_size(make: Callable[[int], nn.Module], wanted: int, grain: int):
    """Return the network whose width, a multiple of `grain`, has that many weights."""
    with torch.device("meta"):
        widths = range(grain, 40 * grain, grain)
        best = min(widths, key=lambda width: abs(count(make(width)) - wanted))
    net = make(best)
    if abs(count(net) / wanted - 1) > 0.08:
        raise ValueError(
            f"no width gives {wanted:,} parameters: {count(net):,} is next"
        )
    return net


def diffusers_like(wanted: int, side: int) -> tuple[nn.Module, Forward]:
    """Diffusers' U-Net with attention where ours has it, as large as ours."""
    from diffusers import UNet2DModel

    small = side == 32

    def make(width: int) -> nn.Module:
        wide = (1, 2) if small else (1, 2, 4, 8)
        attends = (False, True) if small else (False, False, True, True)
        return UNet2DModel(
            sample_size=side,
            block_out_channels=tuple(width * k for k in wide),
            layers_per_block=1 if small else 2,
            down_block_types=[("Attn" * a) + "DownBlock2D" for a in attends],
            up_block_types=[("Attn" * a) + "UpBlock2D" for a in attends[::-1]],
            norm_num_groups=4,
            attention_head_dim=None,
        )

    net = nearest_in_size(make, wanted, 4)
    return net, lambda x, t: net(x, t).sample


def peer_like(wanted: int) -> tuple[nn.Module, Forward]:
    """The U-Net of denoising-diffusion-pytorch with its own defaults, as large."""
    from denoising_diffusion_pytorch import Unet as PeerUnet

    mults = (1, 2) if wanted < 3_000_000 else (1, 2, 4, 8)
    net = nearest_in_size(lambda w: PeerUnet(w, dim_mults=mults), wanted, 4)
    return net, net


def published_network(path: Path) -> tuple[nn.Module, Forward]:
    """The network of the article's repository, in the size that it trained."""
    spec = importlib.util.spec_from_file_location("published", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.UNet(ch_mults=(1, 2, 2, 2))
    return net, net


def sampling(rounds: int, n: int = 16, steps: int = 50) -> None:
    """Print what the sampler costs over the network's calls."""
    net, schedule = UNet(SMALL_UNET).eval(), cosine_schedule(1000)
    net.to(memory_format=torch.channels_last)
    x = torch.randn(n, 3, 32, 32).to(memory_format=torch.channels_last)
    times, t = spaced_times(1000, steps), torch.full((n,), 500)
    denoise = make_denoiser(net, schedule, V)

    @torch.no_grad()
    def calls() -> None:
        for _ in range(steps):
            net(x, t)

    def loop() -> None:
        last(sample(denoise, partial(ddim_step, schedule), x, times))

    shares = []
    for round_ in range(rounds + 1):
        alone, whole = clock(calls), clock(loop)
        if round_:
            shares.append(whole / alone - 1)
    print(f"\nSampling, {n} images, {steps} steps: {alone:.2f} s of network calls;")
    print(f"the sampler adds {100 * statistics.median(shares):.1f} %")


def clock(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
