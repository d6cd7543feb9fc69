"""The training loop, averaged weights and checkpoints. Chapter 07."""

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from math import cos, pi
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ddpm_core.checking import check_count, check_number, check_shape

PRECISIONS = ("no", "bf16", "fp16")
"""The number formats of training, as accelerate names them: no is fp32."""


class TrainStep(NamedTuple):
    """One step, as `train` yields it; reading its tensors waits for the device."""

    step: int  # steps done so far
    loss: Tensor  # mean over this process's share of the batch, before the step
    grad_norm: Tensor  # before clipping
    lr: float


def make_accelerator(precision: str | None = None) -> Accelerator:
    """Return an accelerator that trains in that precision: no, bf16 or fp16.

    Without one it is that of `accelerate launch`, or no (fp32). accelerate keeps one
    precision for the whole process; here each accelerator has its own, so that runs of
    different precisions can follow each other in one kernel. Raises ValueError for
    another precision. Chapter 07.
    """
    precision = precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    AcceleratorState._reset_state()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    cpu = several and not torch.cuda.is_available()  # else each would train alone
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
    accelerator.state.__dict__ = dict(accelerator.state.__dict__)
    return accelerator


def train(
    net: nn.Module,
    loss: Callable[..., Tensor],
    batches: Iterable[tuple[Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    *,
    lr: Callable[[int], float] | None = None,
    ema: "EMA | None" = None,
    clip: float = 1.0,
    accumulate: int = 1,
    accelerator: Accelerator | None = None,
    start: int = 0,
) -> Iterator[TrainStep]:
    """Train on each batch in turn and yield after each step.

    `loss(net, *batch)` returns one loss a sample, (b,), or one of the batch. `lr` maps
    the number of steps done to the learning rate. A batch is taken in `accumulate`
    parts. `start` counts the steps done before. Mixed precision and several processes
    are the accelerator's.
    Raises ValueError for a loss of another shape and numbers out of their range.
    Chapter 07.
    """
    check_number("clip", clip, above=0)
    check_count("accumulate", accumulate)
    check_count("start", start, 0)
    accelerator = accelerator or make_accelerator()
    trained = net
    net, optimizer = accelerator.prepare(net, optimizer)
    net.train()
    if ema is not None:
        ema.net.to(accelerator.device)
    for step, batch in enumerate(batches, start):
        for group in optimizer.param_groups if lr else ():
            group["lr"] = lr(step)
        rate = optimizer.param_groups[0]["lr"]
        total = 0.0
        for i, part in enumerate(_parts(batch, accumulate, accelerator.device)):
            waits = i < accumulate - 1  # gradients of several processes meet once
            with accelerator.no_sync(net) if waits else nullcontext():
                each = loss(net, *part)
                if each.ndim:
                    check_shape("the loss", each, (len(part[0]),))
                part_loss = each.mean() / accumulate
                accelerator.backward(part_loss)
            total = total + part_loss.detach()
        norm = accelerator.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.update(trained, step)
        yield TrainStep(step + 1, total, norm, rate)


def _parts(
    batch: tuple[Tensor, ...], n: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    if len(batch[0]) % n:
        raise ValueError(
            f"a batch of {len(batch[0])} has no accumulate = {n} equal parts"
        )
    chunks = (tensor.to(device, non_blocking=True).chunk(n) for tensor in batch)
    return zip(*chunks, strict=True)


class EMA:
    """An exponential moving average of the weights; samples are drawn from its `net`.

    After step k the decay is min(decay, (1 + k) / (10 + k)), so that the first, random
    weights are soon forgotten. Buffers are copied, not averaged. Chapter 07.
    """

    def __init__(self, net: nn.Module, decay: float = 0.999):
        check_number("decay", decay, 0, 1)
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Move the average towards the weights of `net` after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, weights = list(self.net.parameters()), list(net.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)


def shuffled(n: int, *, passes: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Yield the rows 0..n-1 in batches, `passes` times over, each in another order.

    Each batch is full: the few rows of a pass that would not fill one are left out.
    Raises ValueError for fewer rows than a batch. Chapter 07.
    """
    check_count("n", n)
    check_count("batch", batch, 1, n)
    check_count("passes", passes, 0)
    return _shuffled(n, passes, batch, seed)


def _shuffled(n: int, passes: int, batch: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(passes):
        order = torch.randperm(n, generator=generator)
        yield from order[: n // batch * batch].split(batch)


def warmup_cosine(
    peak: float, *, warmup: int, total: int, end: float = 0.1
) -> Callable[[int], float]:
    """The rate after k steps: a straight rise to `peak`, half a cosine to end * peak.

    Raises ValueError for a peak that is not above 0, a warm-up below 0, and an end
    outside [0, 1]. Chapter 07.
    """
    check_number("peak", peak, above=0)
    check_number("end", end, 0, 1)
    check_number("warmup", warmup, 0)
    check_number("total", total, 0)

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return peak * (end + (1 - end) * (1 + cos(pi * done)) / 2)

    return rate


def save_checkpoint(
    path: Path, step: int, net: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer
) -> None:
    """Write everything that training needs to continue, whole or not at all.

    The file is safetensors: network, averaged weights, the optimiser's moments (not
    the scale of fp16, which finds itself again within some steps), and a hash of all
    that. On a full disk the OSError is raised, nothing is left of the new file and
    older ones are kept.
    """
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.net.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    partial = path.with_suffix(".partial")
    try:
        metadata = {"step": json.dumps(step), "sha256": _digest(step, tensors)}
        save_file(tensors, partial, metadata=metadata)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"the checkpoint {path} could not be written: {error}") from error


def load_checkpoint(
    path: Path, net: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer
) -> int:
    """Restore what `save_checkpoint` wrote and return its step.

    Raises ValueError for a file that cannot be read, that has changed since it was
    written, or that is of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        step = json.loads(metadata["step"])
        check_count("step", step, low=0)
        if metadata.get("sha256", found := _digest(step, tensors)) != found:
            raise ValueError("it has changed since it was written")
        part = {"net": {}, "ema": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            kind, name = key.split(".", 1)
            part[kind][name] = tensor
        net.load_state_dict(part["net"])
        ema.net.load_state_dict(part["ema"])
        optimizer.load_state_dict(_optimizer_state(optimizer, part["optimizer"]))
    except (
        SafetensorError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        raise ValueError(f"the checkpoint {path} cannot be used: {error}") from error
    return step


def _optimizer_state(optimizer: torch.optim.Optimizer, found: dict) -> dict:
    """The state of an optimizer from a checkpoint's tensors, 'number.name'."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in found.items():
        i, name = int(key.split(".")[0]), key.split(".")[1]
        if tensor.shape == parameters[i].shape:  # fused optimisers need equal strides
            tensor = torch.empty_like(parameters[i]).copy_(tensor)
        state.setdefault(i, {})[name] = tensor
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _digest(step: int, tensors: dict[str, Tensor]) -> str:
    """A hash of a checkpoint's step, and of its tensors' names, kinds and bytes."""
    digest = hashlib.sha256(str(step).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
