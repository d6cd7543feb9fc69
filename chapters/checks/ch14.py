"""Feedback for the exercises of chapter 14, the capstone."""

from math import isclose, sqrt

import torch
from torch import Tensor

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    reject,
)


@exercise
def check_run_flop(run_flop):
    """FLOP of a training run: three forward passes for each image it sees."""
    for forward, images, epochs in ((17.66e9, 16_185, 300), (1e6, 50, 2)):
        flop = run_flop(forward, images, epochs)
        expect_given(flop)
        once = forward * images * epochs
        reject(
            isclose(flop, once),
            "that is the way forward only; what does the way back cost?",
        )
        reject(
            isclose(flop, 2 * once),
            "that is the way back only, or the way back is taken to cost one forward "
            "pass: it has two products for each one of the way forward",
        )
        reject(
            isclose(flop, 3 * forward * images),
            "that is one epoch: each image is seen once in every epoch",
        )
        expect(
            isclose(flop, 3 * once),
            f"{forward:.3g} FLOP forward, {images} images and {epochs} epochs make "
            f"{3 * once:.3g}, not {flop:.3g}",
        )
    return "the article's run, and one small enough to count by hand"


@exercise
def check_scaled(scaled):
    """The batch of all processes together, and the rate by the root rule."""
    for per_pass, accumulate, processes, lr, known in (
        (16, 4, 8, 1e-4, 64),
        (32, 1, 1, 1e-3, 32),
        (8, 2, 2, 3e-4, 128),
    ):
        answer = scaled(per_pass, accumulate, processes, lr, known)
        expect_given(answer)
        expect(
            isinstance(answer, tuple | list) and len(answer) == 2,
            "return two values: the batch and the rate",
        )
        batch, rate = answer
        wanted = per_pass * accumulate * processes
        reject(
            batch == per_pass * processes and accumulate > 1,
            "the parts of a batch count too: the weights move once for all of them",
        )
        reject(
            batch == per_pass * accumulate and processes > 1,
            "gradients of all processes are averaged: their images count together",
        )
        expect(batch == wanted, f"the batch must be {wanted}, not {batch}")
        ratio = batch / known
        reject(
            isclose(rate, lr * ratio) and ratio != 1,
            "that is the linear rule, of plain gradient descent: Adam has divided by "
            "the root of the variance already",
        )
        reject(
            isclose(rate, lr / sqrt(ratio)) and ratio != 1,
            "a larger batch has less noise and bears a larger rate, not a smaller one",
        )
        expect(
            isclose(rate, lr * sqrt(ratio)),
            f"{ratio:g} times the batch makes the rate {lr * sqrt(ratio):.3g}",
        )
    return "a larger batch, the same one and a smaller one"


@exercise
def check_training_bytes(training_bytes):
    """fp32 bytes in training, and in a checkpoint, for a number of parameters."""
    for parameters in (54_563_779, 1000):
        answer = training_bytes(parameters)
        expect_given(answer)
        expect(
            isinstance(answer, tuple | list) and len(answer) == 2,
            "return two values: bytes in training, bytes in a checkpoint",
        )
        training, checkpoint = (value / parameters for value in answer)
        reject(
            training == 5 and checkpoint == 4,
            "these are numbers; each takes 4 bytes in fp32",
        )
        reject(
            training == 16,
            "one copy is missing in training: weights, gradients, two moments, average",
        )
        reject(
            training == 12,
            "Adam keeps two moments, of the gradient and of its square, and the "
            "average is a copy too",
        )
        expect(
            training == 20,
            f"you count {training:g} bytes a parameter in training: 4 for each of the "
            "copies that must lie in memory",
        )
        reject(
            checkpoint == 20,
            "the next step makes its gradients anew: they need not be stored",
        )
        reject(
            checkpoint in (4, 8),
            "without the two moments Adam begins anew after each cut",
        )
        reject(checkpoint == 12, "weights and their average differ: both are needed")
        expect(
            checkpoint == 16,
            f"you count {checkpoint:g} bytes a parameter in a checkpoint",
        )
    return "five copies in training, four in a checkpoint"


@exercise
def check_warmed_up(warmed_up):
    """The first step k at which (1 + k) / (10 + k) reaches the decay."""
    for decay in (0.99, 0.9, 0.999, 0.9999):
        step = warmed_up(decay)
        expect_given(step)
        wanted = round((10 * decay - 1) / (1 - decay))
        reject(
            abs(step - 1 / (1 - decay)) < 1.5,
            "that is how many steps the average reaches back once the decay is there: "
            "when is it there?",
        )
        reject(
            abs(step - (10 * decay - 1)) < 0.5 and decay > 0.9,
            "k stands on both sides of (1 + k) = decay (10 + k): collect it",
        )
        reject(
            abs(step - (1 - 10 * decay) / (1 - decay)) < 1,
            "a sign is turned round: this step lies before the first",
        )
        expect(
            abs(step - wanted) <= 1,
            f"with a decay of {decay} the two meet at step {wanted:,}, not {step:,.0f}",
        )
    return "four decays"


PHOTOS = 7 * torch.arange(300) + 3  # their numbers have gaps
GROUPS = torch.cat([PHOTOS, PHOTOS.flip(0), PHOTOS[::3]])  # two or three rows each


@exercise
def check_fair_split(fair_split):
    """Rows to train on and rows held out, such that no photo is on both sides."""

    def split(seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        answer = fair_split(GROUPS.clone(), 60, generator)
        expect_given(answer)
        expect(
            isinstance(answer, tuple | list) and len(answer) == 2,
            "return two tensors: rows to train on, rows held out",
        )
        rows = [torch.as_tensor(part) for part in answer]
        reject(
            any(part.dtype == torch.bool for part in rows),
            "these are masks: return the numbers of the rows, as nonzero() gives them",
        )
        expect(
            all(
                part.ndim == 1 and 0 <= part.min() <= part.max() < 700 for part in rows
            ),
            "return the numbers of rows, 0 to len(groups) - 1, in one dimension",
        )
        return rows

    train, held_out = split()
    both = torch.cat([train, held_out])
    photos = GROUPS[held_out].unique()
    shared = set(GROUPS[train].tolist()) & set(photos.tolist())
    reject(
        bool(shared) and len(both) == 700,
        f"{len(shared)} photos are on both sides: draw photos, not rows",
    )
    reject(
        len(photos) < 40,
        f"60 photos are to be held out, with all their rows; these are {len(photos)}",
    )
    reject(
        len(photos) == 240,
        "the two sides have changed places: training comes first",
    )
    expect(len(photos) == 60, f"{len(photos)} photos are held out, not 60")
    expect(
        len(both) == 700 and len(both.unique()) == 700,
        f"{700 - len(both.unique())} of the 700 rows are on no side: a photo may have "
        "more rows than two",
    )
    reject(
        int(photos.max() - photos.min()) == 7 * 59,
        "the photos are not drawn one by one: neighbours are mostly of one class",
    )
    expect(
        torch.equal(held_out.sort()[0], split()[1].sort()[0]),
        "the same generator must give the same split, or a resumed run trains on what "
        "was held out",
    )
    expect(
        not torch.equal(held_out.sort()[0], split(1)[1].sort()[0]),
        "another seed must hold out other photos",
    )
    return "no photo on both sides, every row on one, by the generator alone"


@exercise
def check_without_bias(without_bias):
    """Frechet distances at several n, carried on to infinitely many images."""
    for n, limit, slope in (
        ([500, 1000, 2000], 7.0, 9000.0),
        ([300, 600, 1200, 2400, 4800], 0.0, 120.0),
    ):
        n = torch.tensor(n, dtype=torch.float64)
        off = (
            slope / 4000 * torch.tensor([1.0, -0.6, 0.3, 0.8, -0.5])[: len(n)].double()
        )
        measured = limit + slope / n + off  # as measured: not quite on a line
        value = expect_tensor(torch.as_tensor(without_bias(n, measured)).squeeze(), ())

        def fitted(
            x: Tensor, rows: slice = slice(None), y: Tensor = measured
        ) -> Tensor:
            line = torch.stack([x, torch.ones_like(x)], 1)[rows]
            return torch.linalg.lstsq(line, y[rows, None]).solution[:, 0]

        reject(
            close(value, fitted(1 / n)[0]),
            "that is the slope, how fast the bias falls: what is left where 1/n is 0?",
        )
        reject(
            close(value, measured[-1]),
            "that is the largest n measured, whose bias is still in it",
        )
        reject(
            close(value, measured.mean()),
            "a mean keeps the mean bias: draw a line",
        )
        reject(
            close(value, fitted(n)[1]),
            "you have drawn the line over n and carried it on to no images at all",
        )
        ends = slice(None, None, len(n) - 1)
        reject(
            any(
                close(value, fitted(1 / n, rows=rows)[1])
                for rows in (ends, slice(0, 2), slice(-2, None))
            ),
            "that is the line through two of the points, with all of their error: fit "
            "it to every point",
        )
        wanted = float(fitted(1 / n)[1])
        expect(
            close(value, torch.tensor(wanted).double()),
            f"the line fitted to {limit:g} + {slope:g}/n and some error ends at "
            f"{wanted:.3g}, not {float(value):.3g}",
        )
    return "two curves of the form limit + slope / n, with errors of measurement"
