"""Feedback for the exercises of chapter 10, conditioning."""

from math import log

import torch
import torch.nn.functional as F

from checks._feedback import (
    close,
    exercise,
    expect,
    expect_tensor,
    random_numbers,
    reject,
)
from ddpm_core.attention import CrossAttention
from ddpm_core.clip import contrastive_loss
from ddpm_core.conditioning import guided
from ddpm_core.types import Condition


def _untouched(tensors: list[torch.Tensor], before: list[torch.Tensor]) -> None:
    same = all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    expect(same, "your function changes a tensor that it was given: make a new one")


@exercise
def check_guide(guide):
    """Classifier-free guidance from two estimates, at scales that include 0 and 1."""
    cond, uncond = random_numbers(2, 3, 4, 4), random_numbers(2, 3, 4, 4, seed=1)
    given, before = [cond, uncond], [cond.clone(), uncond.clone()]
    far = cond - uncond
    for scale in (3.0, 0.0, 1.0, 1.5, 8.0):
        result = expect_tensor(guide(cond, uncond, scale), cond.shape)
        _untouched(given, before)
        where = f"at scale = {scale:g}"
        right = close(result, uncond + scale * far)
        reject(
            close(result, cond + scale * far) and not right,
            f"{where} you start from cond: that is the paper's w, which is 0 where our "
            "scale is 1",
        )
        reject(
            close(result, uncond - scale * far) and not right,
            f"{where} you go away from the condition: is the difference upside down?",
        )
        reject(
            close(result, cond - scale * far) and not right,
            f"{where} cond and uncond have changed places: 0 must be unconditional",
        )
        reject(
            close(result, uncond + scale * cond) and not right,
            f"{where} you add all of cond: only its difference to uncond is due to the "
            "condition",
        )
        expect(
            right,
            f"{where} the result must be uncond + {scale:g} (cond - uncond)",
        )
        library = guided(lambda x, t: cond, lambda x, t: uncond, scale)
        expect(
            close(result, library(cond, torch.ones(2).long())),
            f"{where} the library gives another answer",
        )
    return "scales 0, 1, 1.5, 3 and 8, and the library"


@exercise
def check_class_score(class_score):
    """The gradient of log p(y | x_t) from two noise estimates, against autograd."""
    centres = random_numbers(3, 2, seed=2)
    for ab in (torch.tensor(v, dtype=torch.float64) for v in (0.9, 0.36, 0.02)):
        a, s = ab.sqrt(), (1 - ab).sqrt()
        var = ab * 0.25 + 1 - ab
        x = random_numbers(50, 2, seed=3).requires_grad_()
        off = x[:, None] - a * centres
        r = (-off.square().sum(-1) / (2 * var)).log_softmax(1)
        (wanted,) = torch.autograd.grad(r[:, 0].sum(), x)
        eps = s * off.detach() / var
        cond, uncond = eps[:, 0], (r.detach().exp()[..., None] * eps).sum(1)
        result = expect_tensor(class_score(cond, uncond, ab), cond.shape)
        where = f"at alpha_bar_t = {ab:.2g}"
        reject(
            close(result, -wanted),
            f"{where} your gradient points away from the class: the score is minus "
            "eps over its factor",
        )
        reject(
            close(result, uncond - cond) or close(result, cond - uncond),
            f"{where} you return a difference of noises: what turns a noise into a "
            "score?",
        )
        reject(
            close(result, (uncond - cond) / s**2),
            f"{where} you divide by 1 - alpha_bar_t, a variance: is a root missing?",
        )
        reject(
            close(result, -cond / s),
            f"{where} that is the score of p(x_t | y): take away that of p(x_t)",
        )
        expect(
            close(result, wanted),
            f"{where} it is not the gradient of log p(y | x_t), as autograd finds it "
            "on three Gaussians",
        )
    return "against autograd on three Gaussians, at three levels of noise"


@exercise
def check_contrast(contrast):
    """The contrastive loss in both directions, from unit vectors."""
    images = F.normalize(random_numbers(6, 5), dim=1)
    texts = F.normalize(images + 0.5 * random_numbers(6, 5, seed=1), dim=1)
    scale = 7.0
    logits = scale * images @ texts.T
    own = torch.arange(6)
    rows, columns = F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)
    given, before = [images, texts], [images.clone(), texts.clone()]
    result = expect_tensor(contrast(images, texts, scale), ())
    _untouched(given, before)
    plain = contrast(images, images.roll(1, 0), scale)
    reject(
        close(result, rows),
        "each image finds its caption, but no caption looks for its image: that is "
        "one direction of the two",
    )
    reject(
        close(result, columns),
        "each caption finds its image, but no image looks for its caption: that is "
        "one direction of the two",
    )
    reject(close(result, rows + columns), "take the mean of both directions, not a sum")
    cool = images @ texts.T / scale
    reject(
        close(result, (F.cross_entropy(cool, own) + F.cross_entropy(cool.T, own)) / 2),
        "you divide by `scale`: it multiplies the cosines, as one over a temperature",
    )
    unscaled = images @ texts.T
    reject(
        close(
            result,
            (F.cross_entropy(unscaled, own) + F.cross_entropy(unscaled.T, own)) / 2,
        ),
        "the cosines come without their factor `scale`: with logits between -1 and 1 "
        "no softmax can be sure of anything",
    )
    reject(
        bool(plain < result),
        "captions that belong to the next image have a lower loss than the right ones: "
        "is there a sign missing?",
    )
    same = torch.ones(8, 1, dtype=torch.float64)
    expect(
        close(contrast(same, same, scale), log(8)),
        "where all vectors are the same, nothing is known, and the loss of 8 pairs "
        f"must be log 8 = 2.079; yours is {float(contrast(same, same, scale)):.3f}",
    )
    expect(
        close(result, contrastive_loss(images, texts, scale)),
        f"the loss of six pairs must be {(rows + columns) / 2:.4f}, not {result:.4f}",
    )
    expect(
        close(contrast(images, texts, 2.0), contrastive_loss(images, texts, 2.0)),
        "with another `scale` the loss is wrong: take the factor from the argument",
    )
    leaf = images.clone().requires_grad_()
    expect(
        contrast(leaf, texts, scale).requires_grad,
        "the loss has no gradient, so that nothing can be trained with it: compute it "
        "with tensors to the end",
    )
    return "six pairs, pairs that are mixed up, and log b where nothing is known"


@exercise
def check_word_shares(word_shares):
    """softmax(q k^T / sqrt(d)) over the words that count."""
    q, k = 2 * random_numbers(2, 9, 4), 2 * random_numbers(2, 5, 4, seed=1)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    plain = expect_tensor(word_shares(q, k, torch.ones_like(mask)), (2, 9, 5))
    reject(
        close(plain.sum(1), torch.ones(2, 5)),
        "your shares sum to 1 over the positions: each position divides its own "
        "attention among the words",
    )
    given, before = [q, k, mask], [q.clone(), k.clone(), mask.clone()]
    shares = expect_tensor(word_shares(q, k, mask), (2, 9, 5))
    _untouched(given, before)
    logits = q @ k.transpose(1, 2)
    reject(
        bool((shares[1, :, :3].abs() < 1e-9).all()),
        "the second caption's real words are never read: `mask` is true for those "
        "that count",
    )
    reject(
        bool((shares[1, :, 3:] > 1e-9).any()),
        "the second caption has three words, and your positions read the padding "
        "behind them",
    )
    hidden = (logits / 2).masked_fill(~mask[:, None], -torch.inf).softmax(2)
    without_root = logits.masked_fill(~mask[:, None], -torch.inf).softmax(2)
    reject(
        close(shares, without_root),
        "the products are not divided by the root of d, the width of q and k",
    )
    over_d = (logits / 4).masked_fill(~mask[:, None], -torch.inf).softmax(2)
    reject(
        close(shares, over_d),
        "the products are divided by d, the width of q and k: is a root missing?",
    )
    expect(
        close(shares.sum(2), torch.ones(2, 9)),
        "over the words the shares of each position must sum to 1: mask before the "
        "softmax, not after it",
    )
    expect(
        close(shares, hidden),
        "they sum to 1, but are not softmax(q k^T / sqrt(d)) over the words",
    )
    wide = [random_numbers(1, n, 9, seed=n) for n in (3, 6)]
    six = torch.ones(1, 6, dtype=torch.bool)
    expect(
        close(word_shares(*wide, six), (wide[0] @ wide[1].mT / 3).softmax(2)),
        "with d = 9 the shares are wrong: take d from the shape of q",
    )
    layer = CrossAttention(4, context=4, heads=1, groups=1).double()
    x, cond = random_numbers(2, 4, 3, 3, seed=5), Condition(k[:, 0], k, mask)
    keys = layer.key_value(k).chunk(2, dim=2)[0].detach()
    ours = word_shares(layer._queries(x).detach(), keys, mask)
    maps = layer.maps(x, cond).flatten(2).transpose(1, 2).detach()
    expect(close(ours, maps), "the library's maps are others")
    return "sums over the words, padding, the root of d, and the library's maps"


@exercise
def check_drop_classes(drop_classes):
    """Dropping for each sample alone, to a class of its own: the bug clinic."""
    empty, share, n = 3, 0.1, 20_000
    classes = torch.arange(n) % 3
    before = classes.clone()

    def dropped(seed: int, share: float = share) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        result = drop_classes(classes, empty, share, generator)
        return expect_tensor(result, classes.shape)

    result = dropped(0)
    _untouched([classes], [before])
    changed = result != before
    reject(
        bool((result[changed] == 0).all()) and bool(changed.any()),
        "dropped samples get class 0, which is a class like any other: use `empty`",
    )
    expect(
        bool((result[changed] == empty).all()),
        "a class is either kept or replaced by `empty`; yours turns some into others",
    )
    shares = [float((dropped(seed) == empty).double().mean()) for seed in range(30)]
    reject(
        all(s in (0.0, 1.0) for s in shares),
        "your whole batch is dropped at once, or not at all: draw a number for each "
        "sample",
    )
    reject(
        close(shares[0], 1 - share, 0.02),
        f"you drop {shares[0]:.0%} and keep {share:.0%}: it must be the other way "
        "round",
    )
    expect(
        close(sum(shares) / 30, share, 0.01),
        f"of many samples a fraction of {share} must be dropped, not {shares[0]:.3f}",
    )
    reject(
        torch.equal(dropped(0), dropped(1)),
        "two generators give the same answer: draw from the one you are given",
    )
    reject(
        len(set(shares)) == 1,
        "the same number is dropped every time: each sample must be dropped or kept "
        "for itself",
    )
    expect(
        torch.equal(dropped(0), dropped(0)),
        "one seed gives two answers: draw from `generator` alone",
    )
    per_class = [float(changed[before == c].double().mean()) for c in range(3)]
    expect(
        max(per_class) - min(per_class) < 0.03,
        "some classes are dropped more often than others",
    )
    five = drop_classes(classes, 5, share, torch.Generator().manual_seed(0))
    expect(
        set(five.tolist()) == {0, 1, 2, 5},
        "where `empty` is 5, what is dropped must become 5",
    )
    expect(
        torch.equal(dropped(0, 0.0), before) and bool((dropped(0, 1.0) == empty).all()),
        "a fraction of 0 must keep all, a fraction of 1 drop all",
    )
    return "each sample for itself, to `empty`, in the right share, from the generator"


@exercise
def check_both(both):
    """Two conditions at once: exact on Gaussians where they are independent."""

    def exact(x, mean, var, ab):
        gain = ab.sqrt() * var / (ab * var + 1 - ab)
        return mean + gain * (x - ab.sqrt() * mean)

    x, one = random_numbers(40, 2, seed=1), torch.ones(2, dtype=torch.float64)
    m_a, m_b = torch.tensor([[2.0, 0.0], [0.0, -1.5]], dtype=torch.float64)
    v_a, v_b = torch.tensor([[0.1, 1.0], [1.0, 0.2]], dtype=torch.float64)
    for ab in (torch.tensor(v, dtype=torch.float64) for v in (0.8, 0.2)):
        u = exact(x, 0 * one, one, ab)
        a, b = exact(x, m_a, v_a, ab), exact(x, m_b, v_b, ab)
        wanted = exact(x, m_a + m_b, v_a * v_b, ab)
        silent = expect_tensor(both(u, u, u, 2.0), u.shape)
        result = expect_tensor(both(a, b, u, 1.0), u.shape)
        reject(
            close(silent, u + 2 * u),
            "you take away uncond once, but there are two differences: where both "
            "conditions say nothing, the answer must be uncond",
        )
        g = u + 3 * (a - u)
        reject(
            close(both(a, b, u, 3.0), g + 3 * (b - g)),
            "you guide an answer that is guided already: the second push starts "
            "from the first: both differences are taken to uncond",
        )
        expect(
            close(silent, u),
            "where both conditions say nothing (a = b = uncond) the answer must be "
            "uncond",
        )
        reject(
            close(result, (a + b) / 2),
            "you take the mean of two guided answers, so that each condition is half "
            "obeyed",
        )
        reject(
            close(both(a, b, u, 2.0), b + 2 * (a - b)),
            "you guide towards a and away from b: that is a negative prompt",
        )
        stronger = u + 3 * (a - u) + (b - u)
        reject(
            close(both(a, b, u, 3.0), stronger),
            "only the first condition is strengthened by `scale`",
        )
        expect(
            close(result, wanted),
            "at scale 1 the answer must be the exact denoiser of data that meet both "
            "conditions",
        )
        expect(
            close(both(a, u, u, 3.0), u + 3 * (a - u)),
            "where b says nothing, it must be plain guidance towards a",
        )
        reject(
            close(both(u, b, u, 3.0), u + 9 * (b - u)),
            "the second condition is strengthened by the square of `scale`",
        )
        expect(
            close(both(u, b, u, 3.0), u + 3 * (b - u)),
            "where a says nothing, it must be plain guidance towards b",
        )
        expect(
            close(both(a, b, u, 2.5), u + 2.5 * (a - u) + 2.5 * (b - u)),
            "at scale 2.5 the two pushes must add up",
        )
    return "exact for two conditions at once, and plain guidance where one is silent"
