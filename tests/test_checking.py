"""What is malformed is refused in one line, and not broadcast, rounded or ignored.

The run-time type checks of the other tests are off here: a reader has none.
"""

from functools import partial

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm_core import (
    attention,
    clip,
    conditioning,
    diffusion,
    distillation,
    editing,
    latent,
    metrics,
    mixtures,
    samplers,
    schedules,
    score,
    training,
    unet,
)
from ddpm_core.checking import check_count, check_number, quoted
from ddpm_core.neighbours import gan, levels, vae
from ddpm_core.types import Condition

pytestmark = pytest.mark.usefixtures("no_type_checks")

S = schedules.cosine_schedule(50)
X, T4 = torch.zeros(4, 3, 8, 8), torch.tensor([1, 2, 3, 50])
STEP = partial(samplers.ddim_step, S)
GAN = gan.GANConfig(8, (8,), latent=4, groups=4)
ASKED = gan.GANConfig(8, (8,), latent=4, groups=4, values=(2, 3))
SMALL = vae.VAE(vae.VAEConfig(8, (8,), latent=4, groups=4, spatial=True))
NET = unet.UNet(unet.UNetConfig((8,), (False,), 1, groups=4))
NAN, INF = float("nan"), float("inf")


def identity(x, t, cond=None):
    return x


def one_channel(x, t, cond=None):
    return x[:, :1]


def sampled(denoise=identity, step=STEP, x=X, times=(50, 20, 0), **options):
    return samplers.last(samplers.sample(denoise, step, x, times, **options))


def loss(net=identity, x=X, **options):
    return diffusion.diffusion_loss(net, S, diffusion.V, x, **options)


def trained(**options):
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    options = {"loss": lambda net, x: net(x).mean(1)} | options
    batches = [(torch.zeros(4, 2),)]
    return list(training.train(net, options.pop("loss"), batches, optimizer, **options))


def played(D):
    G = torch.nn.Linear(3, 2)
    each = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (G, D)]
    return list(gan.train(G, D, [(torch.zeros(4, 2),)], each, latent=3))


MIXTURE = mixtures.two_peaks()
ROWS = torch.zeros(9, 2)
ONE_LINE = [
    # schedules
    (lambda: schedules.linear_schedule(10.5), "T must be a whole number, got 10.5"),
    (lambda: schedules.cosine_schedule(10**12), r"T must lie in 2\.\.1000000"),
    (lambda: schedules.cosine_schedule(9, offset=NAN), "offset must be a finite"),
    (lambda: schedules.sigmoid_schedule(9, end=INF), "end must be a finite"),
    (lambda: schedules.Schedule([1.0, 0.5]), "alpha_bar must be a tensor, got list"),
    (lambda: S.scales(T4.float(), X), "t must be integers, got torch.float32"),
    (lambda: S.scales(T4, X.int()), "like must be floating-point, got torch.int32"),
    (lambda: S.alpha_bars(5, -1), "t = 5, u = -1"),
    # diffusion
    (lambda: diffusion.add_noise(S, X.int(), T4, X), "x0 must be floating-point"),
    (lambda: diffusion.add_noise(S, X, T4, X.int()), "eps must be floating-point"),
    (
        lambda: diffusion.add_noise(S, X, T4[:, None], X),
        r"t must have the shape \(b,\)",
    ),
    (lambda: diffusion.add_noise(S, X, T4[:1], X), "one time for each of 4 samples"),
    (
        lambda: diffusion.add_noise(S, X, T4 > 1, X),
        "t must be integers, got torch.bool",
    ),
    (lambda: diffusion.add_noise(S, X, T4, X[:, :1]), "eps must have the shape of x0"),
    (lambda: loss(one_channel), r"the network must return the shape of x_t, \(4, 3"),
    (lambda: loss(lambda *_: None), "the network must return a floating-point tensor"),
    (lambda: loss(x=X.byte()), "x0 must be floating-point, got torch.uint8"),
    (lambda: loss(t=T4[:, None]), "t must have the shape"),
    (lambda: loss(weight=lambda snr: snr[:1]), "the weight of the loss must have the"),
    (
        lambda: diffusion.make_denoiser(one_channel, S, diffusion.V)(X, T4),
        "the network must return the shape of x_t",
    ),
    (lambda: diffusion.edm(0), "sigma_data must be above 0, got 0"),
    (lambda: diffusion.min_snr(diffusion.V, NAN), "gamma must be a finite number"),
    (lambda: diffusion.draw_times(S, 2.5), "n must be a whole number"),
    # samplers
    (lambda: sampled(one_channel), "denoise must return the shape of x_t"),
    (lambda: sampled(step=lambda x, *_: x[:, :1]), "step must return the shape of x_t"),
    (lambda: sampled(x=X.int()), "x_T must be floating-point"),
    (lambda: sampled(times=(50.0, 0.0)), "each of the times must be a whole number"),
    (lambda: sampled(times=(60, 0)), "T = 50, got t = 60"),
    (
        lambda: sampled(generator=[torch.Generator()]),
        "4 samples need one generator, or",
    ),
    (lambda: samplers.spaced_times(50, 2.5), "steps must be a whole number, got 2.5"),
    (lambda: STEP(X, X[:, :1], 2, 1, X), "x0_hat must have the shape of x"),
    (lambda: STEP(X, X, 2, 1, X[:1]), "noise must have the shape of x"),
    (lambda: STEP(X, X, 2, 1, X, eta=NAN), "eta must be a finite number"),
    (lambda: samplers.posterior_variance(S, 2.0, 1), "t must be a whole number"),
    # what wraps a denoiser
    (lambda: conditioning.guided(identity, identity, NAN), "scale must be a finite"),
    (
        lambda: conditioning.guided(one_channel, identity, 2)(X, T4),
        "cond must return the shape of x_t",
    ),
    (lambda: conditioning.guided_together(identity, "2"), "scale must be a number"),
    (lambda: conditioning.clipped(identity, 1, -1), "high must be above 1, got -1"),
    (
        lambda: conditioning.join(Condition(X), Condition(X, X)),
        "one of the conditions has states, the other has none",
    ),
    (
        lambda: conditioning.dropped(T4[:, None], T4, 0.5, torch.Generator()),
        r"empty must have the shape of one condition, \(1,\), got \(4,\)",
    ),
    (lambda: conditioning.ClassEmbedding(0, 3), "classes must be at least 1, got 0"),
    (
        lambda: conditioning.ClassEmbedding(3, 3)(T4.float()),
        "classes must be integers",
    ),
    (lambda: editing.replacing(S, STEP, X, X[:2] > 0), "keep must broadcast over x0"),
    (
        lambda: editing.replacing(S, STEP, X[0], torch.zeros(4, 3, 8, 8).bool()),
        "keep must broadcast over x0",
    ),
    (
        lambda: editing.reconstruction_guided(identity, S, X, X > 0)(X[:1], T4[:1]),
        "x_t must have the shape of x0",
    ),
    (
        lambda: editing.reconstruction_guided(one_channel, S, X, X > 0)(X, T4),
        "denoise must return",
    ),
    (lambda: editing.resampling(S, STEP, identity, 1.5), "rounds must be a whole"),
    (lambda: list(editing.invert(one_channel, S, X, [9, 0])), "denoise must return"),
    (
        lambda: list(editing.invert(identity, S, X, [99, 0])),
        r"times must lie in 0\.\.50",
    ),
    (lambda: editing.slerp(X, X[:1], 0.5), "y must have the shape of x"),
    (lambda: editing.slerp(X, X, NAN), "f must be a finite number"),
    (lambda: score.make_score(identity, S)(X, T4 - 1), r"t must lie in 1\.\.50, got 0"),
    (lambda: score.langevin_step(X, X, INF, X), "size must be a finite number"),
    (lambda: score.langevin_step(X, X[:, :1], 1, X), "score must have the shape of x"),
    (lambda: score.sde_step(S, X, X, 3, -1, X), "t = 3, u = -1"),
    (lambda: score.sde_step(S, X, X, 3, 1, X[:1]), "noise must have the shape of x"),
    # mixtures, distillation
    (
        lambda: MIXTURE._replace(weights=MIXTURE.weights * 2).denoiser(S),
        "weights must sum to 1, got 2",
    ),
    (
        lambda: MIXTURE._replace(stds=-MIXTURE.stds).check(),
        "stds must be finite and not",
    ),
    (lambda: MIXTURE.sample(0, torch.Generator()), "n must be at least 1, got 0"),
    (lambda: MIXTURE.log_density(ROWS.double()), "samples must have 1 numbers, got 2"),
    (lambda: mixtures.blobs(ROWS, -1), "std must be at least 0, got -1"),
    (lambda: mixtures.ideal_denoiser(X[:0], S), "data must hold samples"),
    (lambda: mixtures.ideal_denoiser(X, S)(X[:, :1], T4), "x_t must have shape"),
    (
        lambda: distillation.progressive(identity, S, calls=3, teacher_calls=4),
        "teacher_calls must be a multiple of calls = 3, got 4",
    ),
    (lambda: distillation.reflow(identity, S, teacher_calls=4), "end in pure noise"),
    (
        lambda: distillation.follow(identity, S, X, torch.stack([T4, T4])),
        "times must fall for each sample",
    ),
    # metrics
    (lambda: metrics.texture(X[..., :1]), "images need two rows and two columns"),
    (lambda: metrics.texture(X.byte()), "images must be floating-point"),
    (lambda: metrics.texture(X * NAN), "images must be finite"),
    (lambda: metrics.precision_recall(ROWS, ROWS, k=1.5), "k must be a whole number"),
    (lambda: metrics.kernel_distance(ROWS, ROWS, degree=0.5), "degree must be a whole"),
    (lambda: metrics.nearest(ROWS, ROWS, chunk=0), "chunk must be at least 1, got 0"),
    (lambda: metrics.frechet_distance([1], ROWS), "features must be tensors, got list"),
    (
        lambda: metrics.gaussian_distance(ROWS[0], ROWS, ROWS[0], ROWS),
        r"cov_1 must have shape \(2, 2\), got \(9, 2\)",
    ),
    (lambda: metrics.attribute_histogram(T4.float(), 60), "values must be integers"),
    (
        lambda: metrics.attribute_accuracy(X[0, 0], X[0, 0]),
        "predicted must be integers",
    ),
    # networks and their losses
    (lambda: NET(X, T4[:1]), "4 samples need as many timesteps, got 1"),
    (lambda: NET(X, T4.float()), "t must be integers"),
    (lambda: NET(X[0], T4), r"x must have the shape \(b, c, h, w\), got \(3, 8, 8\)"),
    (lambda: unet.UNetConfig(blocks=1.0), "blocks must be a whole number, .*; got 1.0"),
    (lambda: unet.UNetConfig(channels=[64]), r"channels must be a list.*got \[64\]"),
    (lambda: unet.UNetConfig(dropout=NAN), "dropout must be a number, .*; got nan"),
    (lambda: unet.SinusoidalEmbedding(2), "dim must be even and at least 4, got 2"),
    (
        lambda: attention.attend(ROWS[None], ROWS[None], ROWS[None, :1], heads=1),
        "v must have the shape of k",
    ),
    (
        lambda: attention.attend(*[ROWS[None]] * 3, heads=4),
        "2 channels cannot be split into 4 heads",
    ),
    (
        lambda: attention.CrossAttention(8, context=4, heads=1, groups=4)(X, None),
        "a condition with words",
    ),
    (lambda: levels.Levels(blocks="2"), "blocks must be a whole number; got '2'"),
    (lambda: vae.VAEConfig.from_dict([1]), "not a VAEConfig"),
    (lambda: SMALL.encode(X.byte()), "images must be floating-point"),
    (
        lambda: SMALL.decode(X),
        r"decodes z of shape \('b', 4, 4, 4\), got \(4, 3, 8, 8\)",
    ),
    (lambda: vae.draw_latents(X, X[:, :1]), "log_var must have the shape of mean"),
    (
        lambda: vae.kl_to_standard_normal(X, X[:1]),
        "log_var must have the shape of mean",
    ),
    (lambda: vae.gaussian_nll(X, X[:, :1]), "the decoder must return the shape of x"),
    (lambda: vae.gaussian_nll(X, X, 0), "variance must be above 0, got 0"),
    (lambda: vae.vae_loss(SMALL, X, beta=-1), "beta must be at least 0, got -1"),
    (lambda: vae.sample(SMALL, 0), "n must be at least 1, got 0"),
    (lambda: latent.perceptual_distance([], X, X[:1]), "y must have the shape of x"),
    (
        lambda: latent.autoencoder_loss(SMALL, X, kl_weight=NAN),
        "kl_weight must be a finite number",
    ),
    (
        lambda: latent.LatentScaler(SMALL).decode(X[:, :1]),
        r"latents must have 4 channels, got \(4, 1, 8, 8\)",
    ),
    (lambda: gan.Generator(GAN)(ROWS), r"z must have the shape \(b, 4\), got \(9, 2\)"),
    (lambda: gan.Generator(GAN)(ROWS.repeat(1, 2), T4), "takes no labels, got shape"),
    (lambda: gan.Critic(GAN)(X[..., :4]), r"images must have shape \(4, 3, 8, 8\)"),
    (lambda: gan.sample(gan.Generator(ASKED), 4), "labels of shape.*got none"),
    (
        lambda: gan.sample(gan.Generator(ASKED), 1, torch.tensor([[1, 3]])),
        r"labels of this attribute lie in 0\.\.2, got 3\.\.3",
    ),
    (
        lambda: gan.gradient_penalty(lambda x: x[:, :1], ROWS, ROWS),
        r"the scores must have shape \(9,\), got \(9, 1\)",
    ),
    (
        lambda: played(torch.nn.Linear(2, 1)),
        r"the critic's scores must have shape \(4,\), got \(4, 1\)",
    ),
    (
        lambda: clip.contrastive_loss(ROWS, ROWS[:3], 1.0),
        "texts must have the shape of",
    ),
    (lambda: clip.CLIPConfig(("a",), width=0), "width must be at least 1, got 0"),
    (lambda: clip.Tokenizer(("a",), 4)("a red car"), "captions must be a list of them"),
    # what is no tensor, and what fits only by broadcasting
    (lambda: STEP(X, X.numpy(), 5, 3, X), "x0_hat must be a tensor, got ndarray"),
    (lambda: STEP(X, X.long(), 5, 3, X), "x0_hat must be floating-point"),
    (lambda: STEP(X, X, 5, 3, X.numpy()), "noise must be a tensor, got ndarray"),
    (lambda: STEP(X, X, 5, 3, None), "noise must be a tensor, got NoneType"),
    (lambda: samplers.Heun(S, identity, 2.5), "calls must be a whole number, got 2.5"),
    (
        lambda: distillation.consistency_step(S, X, X.tolist(), 5, 3, X),
        "x0_hat must be a tensor, got list",
    ),
    (
        lambda: distillation.consistency(identity, identity, S, steps=5)(X, 0 * T4, X),
        r"t must lie in 1\.\.50, got 0\.\.0",
    ),
    (
        lambda: distillation.progressive(identity, S, calls=2, teacher_calls=4)(
            X, T4 + 1, X
        ),
        r"t must lie in 1\.\.50, got 2\.\.51",
    ),
    (lambda: score.langevin_step(X, None, 0.1, X), "score must be a tensor"),
    (lambda: score.sde_step(S, X, X.numpy(), 5, 3, X), "x0_hat must be a tensor"),
    (
        lambda: score.make_score(identity, S)(X, T4[:2]),
        "one time for each of 4 samples, got 2",
    ),
    (
        lambda: mixtures.ideal_denoiser(X, S)(X[:1], T4),
        "one time for each of 1 samples, got 4",
    ),
    (
        lambda: mixtures.two_peaks().denoiser(S)(X[:1, :1, 0, 0], T4),
        "one time for each of 1 samples, got 4",
    ),
    (lambda: conditioning.clipped(one_channel)(X, T4), "denoise must return the shape"),
    (
        lambda: conditioning.beside(identity, X[:1])(X, T4),
        r"condition must have shape \(4, 3, 8, 8\), got \(1, 3, 8, 8\)",
    ),
    (
        lambda: conditioning.join(Condition(ROWS), Condition(ROWS[:, :1])),
        r"the second pooled must have shape \(9, 2\), got \(9, 1\)",
    ),
    (
        lambda: conditioning.dropped(T4.numpy(), T4[0], 0.5, None),
        "conditions must be a tensor",
    ),
    (
        lambda: editing.replacing(S, STEP, X, X.bool().numpy()),
        "keep must be a tensor, got ndarray",
    ),
    (
        lambda: editing.replacing(S, STEP, X[:1], X[:1].bool())(X, X, 5, 3, X),
        "x must have the shape of x0",
    ),
    (lambda: conditioning.guided(identity, identity, 10**30), "within 64 bits"),
    (lambda: diffusion.draw_times(S, 10**30), "n must lie within 64 bits"),
    # training
    (
        lambda: trained(loss=lambda net, x: net(x)),
        r"the loss must have shape \(4,\), got \(4, 2\)",
    ),
    (lambda: trained(accumulate=0), "accumulate must be at least 1, got 0"),
    (lambda: trained(clip=NAN), "clip must be a finite number"),
    (lambda: training.EMA(NET, 1.5), r"decay must lie in \[0, 1\], got 1.5"),
    (
        lambda: training.shuffled(3, passes=1, batch=4, seed=0),
        r"batch must lie in 1\.\.3",
    ),
    (lambda: training.warmup_cosine(INF, warmup=1, total=2), "peak must be a finite"),
    (lambda: training.make_accelerator("fp8"), "no, bf16, fp16, got 'fp8'"),
]


@pytest.mark.parametrize(("call", "why"), ONE_LINE, ids=range(len(ONE_LINE)))
def test_a_malformed_call_is_refused_in_one_line(call, why):
    with pytest.raises((ValueError, TypeError), match=why) as raised:
        call()
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_checks_let_pass_what_is_right():
    """Each fixture of the malformed calls is fine as it stands."""
    assert sampled().shape == X.shape and loss(t=T4).shape == (4,)
    assert NET(X, T4).shape == X.shape and len(trained()) == 1
    assert SMALL.decode(SMALL.encode(X).mean).shape == X.shape
    assert gan.sample(gan.Generator(ASKED), 1, torch.tensor([[1, 2]])).shape[0] == 1
    check_number("x", 1, 1, 1)
    check_count("n", 3, 3)


def test_a_long_value_is_quoted_in_short():
    assert len(quoted("a" * 10_000)) == 80 and quoted("a\nb") == repr("a\nb")


# A Mac without a Mac ------------------------------------------------------------------


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.device.type == "mps":
                assert t.dtype != torch.float64, f"MPS knows no float64: {func}"
        return out


def on_mps(*shape):
    return torch.empty(*shape, device="mps")


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.texture(on_mps(4, 3, 8, 8)),
        lambda: metrics.frechet_distance(on_mps(9, 2), on_mps(9, 2)),
        lambda: metrics.nearest(on_mps(9, 2), on_mps(9, 2)),
        lambda: metrics.gaussian_distance(
            on_mps(2), on_mps(2, 2), on_mps(2), on_mps(2, 2)
        ),
        lambda: MIXTURE._replace(
            weights=on_mps(2), means=on_mps(2, 1), stds=on_mps(2)
        ).densities(S, on_mps(9, 1)),
        lambda: S.to("mps").scales(on_mps(4).long(), on_mps(4, 1)),
    ],
)
def test_no_float64_reaches_a_device_without_it(call):
    """Fake tensors have no values: what needs one may stop, but past the float64."""
    with FakeTensorMode(allow_non_fake_inputs=True), NoFloat64():
        try:
            call()
        except AssertionError:
            raise
        except Exception as error:
            assert "float64" not in str(error)
