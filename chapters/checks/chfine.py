"""Feedback for the exercises of the chapter on fine-tuning."""

import torch

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_given,
    expect_tensor,
    random_numbers,
    reject,
)


@exercise
def check_lora_weights(lora_weights):
    """How many numbers a change of low rank has."""
    for rank, inputs, outputs in ((4, 96, 48), (1, 10, 10), (8, 27, 64)):
        n = lora_weights(rank, inputs, outputs)
        expect_given(n)
        reject(n == inputs * outputs, "that is the whole matrix W: count A and B")
        reject(
            n == rank * inputs * outputs and rank > 1,
            "A is rank x inputs and B is outputs x rank: their sizes add up",
        )
        reject(n == rank * inputs, "that is A alone: B has numbers, too")
        right = rank * (inputs + outputs)
        expect(n == right, f"rank {rank}, {inputs} to {outputs}: not {n} but {right}")
    return "three layers; a rank of 4 has a tenth of the numbers of a wide one"


@exercise
def check_merge(merge):
    """One matrix that does what the layer and its change do together."""
    w, a, b = (random_numbers(*s, seed=s[0]) for s in ((5, 7), (2, 7), (5, 2)))
    x = random_numbers(7, 3, seed=9)
    kept = w.clone()
    for scale in (1.0, 0.5, 0.0):
        both = w @ x + scale * b @ (a @ x)
        merged = expect_tensor(merge(w, a, b, scale), w.shape)
        expect(close(w, kept), "W itself must stay as it is: return a new matrix")
        reject(
            scale not in (0, 1) and close(merged @ x, w @ x + b @ (a @ x)),
            "the scale is missing: it multiplies the change",
        )
        reject(
            scale not in (0, 1) and close(merged @ x, scale * (w @ x + b @ (a @ x))),
            "the scale multiplies only the change, not W",
        )
        reject(
            scale == 1 and close(merged, b @ a), "that is the change alone: add it to W"
        )
        expect(close(merged @ x, both), f"at scale {scale} it differs from both apart")
    return "three scales; at 0 it is W"


@exercise
def check_first_gradients(first_gradients):
    """The gradients of A and B when training begins."""
    a, x, g = (random_numbers(*s, seed=s[0]) for s in ((2, 7), (7,), (5,)))
    zero = torch.zeros(5, 2, dtype=torch.float64)
    for b in (zero, random_numbers(5, 2, seed=4)):
        found = first_gradients(a, b, x, g)
        expect_given(found)
        expect(isinstance(found, tuple) and len(found) == 2, "return a pair: dA, dB")
        da, db = found
        expect_tensor(da, a.shape)
        expect_tensor(db, b.shape)
        reject(
            not close(db, torch.outer(g, a @ x)) and close(db, torch.outer(g, g[:2])),
            "dB needs what B is multiplied with: A x",
        )
        expect(
            close(db, torch.outer(g, a @ x)), "dB is not the outer product g (A x)^T"
        )
        reject(
            b is zero and not close(da, torch.zeros_like(a)),
            "with B = 0 nothing of A reaches the output: its gradient is zero",
        )
        expect(close(da, torch.outer(b.T @ g, x)), "dA is not (B^T g) x^T")
    return "at the start only B moves; later both"


@exercise
def check_with_prior(with_prior):
    """The loss with prior preservation, Ruiz et al. 2023, eq. (2)."""
    new, old = random_numbers(8, seed=1).square(), random_numbers(4, seed=2).square()
    for weight in (1.0, 0.3, 0.0):
        loss = torch.as_tensor(with_prior(new, old, weight))
        expect_given(loss)
        reject(
            loss.ndim > 0,
            "it must be one number: take the mean of each group of losses",
        )
        joint = torch.cat([new, weight * old]).mean()
        reject(
            close(loss, joint),
            "one mean over both groups counts the larger one more: a mean for each",
        )
        reject(
            weight == 0.3 and close(loss, weight * (new.mean() + old.mean())),
            "the weight multiplies only the old kind's loss",
        )
        reject(close(loss, new.sum() + weight * old.sum()), "means, not sums")
        expect(close(loss, new.mean() + weight * old.mean()), "that is not eq. (2)")
    return "three weights; at 0 it is the loss of plain fine-tuning"


@exercise
def check_forgetting(forgetting):
    """By how much the loss on the old kind has risen, as a fraction."""
    before = torch.tensor([0.01, 0.2, 0.05], dtype=torch.float64)
    after = torch.tensor([0.02, 0.22, 0.09], dtype=torch.float64)
    found = float(forgetting(before, after))
    reject(
        close(found, (after / before).mean() - 1),
        "the mean of the ratios lets small losses decide: take the ratio of the means",
    )
    reject(close(found, after.mean() / before.mean()), "unchanged must give 0, not 1")
    reject(close(found, before.mean() / after.mean() - 1), "more loss must be above 0")
    reject(
        close(found, after.mean() - before.mean()),
        "a difference depends on the size of the loss: divide by the one before",
    )
    expect(
        close(found, after.mean() / before.mean() - 1), f"it must not be {found:.4f}"
    )
    expect(close(float(forgetting(before, before)), 0), "unchanged must give 0")
    return "a rise, and none"


@exercise
def check_rank_needed(rank_needed):
    """The least rank that keeps a fraction of a change's squared size."""
    turn, _ = torch.linalg.qr(random_numbers(6, 6, seed=3))
    sizes = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    change = turn @ torch.diag(sizes) @ turn.T
    energy = sizes.square().cumsum(0) / sizes.square().sum()
    for share in (0.5, 0.8, 0.93, 0.999):
        rank = rank_needed(change, share)
        expect_given(rank)
        right = int((energy < share).sum()) + 1
        plain = int((sizes.cumsum(0) / sizes.sum() < share).sum()) + 1
        reject(
            rank == plain and plain != right,
            "squared size: the singular values are squared before they are added",
        )
        reject(
            rank == right - 1, "one too few: that rank still keeps less than asked for"
        )
        expect(rank == right, f"to keep {share} it takes rank {right}, not {rank}")
    return "four fractions of one change"
