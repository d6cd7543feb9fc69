"""Presets: their round trip, their refusals."""

import json

import pytest

from ddpm_core.diffusion import EPS
from ddpm_core.dit import DiTConfig
from ddpm_core.workshop.presets import PRESETS, SMALL_UNET, Preset, preset


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_a_preset_back(name):
    chosen = preset(name)
    assert Preset.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


def test_fields_of_the_run_and_of_the_network_can_be_changed():
    changed = preset("toy-cars-32").replace(
        lr=0.5, channels=(8, 16), T=77, sample_steps=7
    )
    model = changed.model
    assert (changed.lr, model.network.channels, model.T) == (0.5, (8, 16), 77)
    assert preset("toy-cars-32").model.network == SMALL_UNET


def test_the_articles_recipe_is_what_it_published():
    article = preset("cars64-article")
    schedule = article.model.make_schedule()
    assert schedule.T == 512 and article.model.make_target() is EPS
    assert schedule.beta[1].item() == pytest.approx(1e-4)
    assert schedule.beta[512].item() == pytest.approx(0.02)
    recipe = (article.batch, article.epochs, article.lr, article.warmup)
    assert article.model.size == 64 and recipe == (64, 300, 1e-4, 10)
    assert article.model.network.dropout == 0.1


def test_a_text_encoder_and_a_network_that_listens_need_each_other():
    with pytest.raises(ValueError, match="need each other, got text = 'clip' and poo"):
        preset("toy-cars-32").replace(text="clip")
    with pytest.raises(ValueError, match="text = '' and pooled = 64"):
        preset("toy-cars-text-32").replace(text="")
    with pytest.raises(ValueError, match="drop must be a number, .* at most 1; got 10"):
        preset("toy-cars-32").replace(drop=10)


def test_the_views_differ_in_nothing_but_the_view():
    base = preset("toy-cars-v-32")
    assert preset("toy-cars-eps-32") == base.replace(target="eps")
    assert preset("toy-cars-edm-32") == base.replace(target="edm")
    flow = preset("toy-cars-flow-32")
    assert flow == base.replace(target="flow", schedule="flow")
    assert flow.model.make_schedule().ends_in_pure_noise


def test_zero_terminal_snr_is_an_option_of_every_schedule():
    for name in ("linear", "cosine", "sigmoid"):
        chosen = preset("toy-cars-32").replace(schedule=name, zero_terminal_snr=True)
        assert chosen.model.make_schedule().ends_in_pure_noise


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"compile": False}])
def test_graphs_are_for_compiled_networks_and_whole_batches(changes):
    assert preset("cars64").replace(graphs=True).graphs
    with pytest.raises(ValueError, match="graphs are for a compiled network and a bat"):
        preset("cars64").replace(graphs=True, **changes)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="'cars'; there is: toy-cars-32, toy-"):
        preset("cars")
    with pytest.raises(ValueError, match="unknown schedule 'quadratic'.*linear, cosi"):
        preset("toy-cars-32").replace(schedule="quadratic")
    with pytest.raises(
        ValueError, match="unknown target 'noise'; there is: eps, x0, v, flow, edm"
    ):
        preset("toy-cars-32").replace(target="noise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"absent": ("red+blue",)}, "names two values of one attribute"),
        ({"batch": 0}, "batch must be a whole number, at least 1 and at mo.*; got 0"),
        ({"ema": 1.0}, "ema must be a number, at least 0 and below 1; got 1.0"),
        ({"size": 30}, "size must be a multiple of 4"),
        ({"checkpoint_every": 30}, "multiple of log_every = 20, got 30"),
        ({"held_out": -1}, "held_out must be a whole number, at least 0 .*; got -1"),
        ({"clip": 0.0}, "clip must be a number, above 0; got 0.0"),
        ({"T": 20}, "sample_steps must be at most T = 20, got 50"),
        ({"target": "eps", "zero_terminal_snr": True}, "eps cannot be learned"),
        (
            {"schedule": "linear", "beta_end": 2.0},
            "beta_end must be a.*; got 2.0",
        ),
        ({"groups": 0}, "groups must be a whole number, at least 1 .*; got 0"),
        ({"channels": (), "attention": ()}, r"one width a level.*got \(\)"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
        ({"min_snr": -1.0}, "min_snr must be a number, at least 0; got -1.0"),
        ({"teacher": "t"}, "must end in pure noise"),
        ({"teacher": "t", "calls": 3}, "a multiple of calls = 3, got 32"),
        ({"teacher": "t", "text": "c", "pooled": 8}, "cannot be distilled yet"),
    ],
)
def test_values_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        preset("toy-cars-32").replace(**change)


def test_a_file_of_something_else_is_no_preset():
    values = preset("toy-cars-32").to_dict()
    with pytest.raises(ValueError, match="of a run has unknown fields: 'wings'"):
        Preset.from_dict({**values, "wings": 2})
    with pytest.raises(ValueError, match="the configuration of a run lacks model"):
        Preset.from_dict({"data": "toy-cars"})
    with pytest.raises(ValueError, match="the configuration of a run must be an obj"):
        Preset.from_dict([])
    with pytest.raises(ValueError, match="an older configuration: `ddpm migrate`"):
        Preset.from_dict({"data": "toy-cars", "unet": {}})


def test_a_network_takes_its_own_options_and_no_others():
    plain = preset("toy-cars-32")
    small = plain.replace(network="dit", depth=2, width=32)
    assert small.model.network == DiTConfig(width=32, depth=2)
    with pytest.raises(ValueError, match="depth is no option of the network unet, whi"):
        plain.replace(depth=2)
    with pytest.raises(ValueError, match="channels is no option of the network dit"):
        small.replace(channels=(8, 16))
    with pytest.raises(ValueError, match="unknown network 'rnn'; there is: unet, dit"):
        plain.replace(network="rnn")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_numbers_are_finite_and_in_their_range(value):
    for name in ("lr", "lr_end", "warmup", "min_snr", "clip", "beta_end", "ema"):
        with pytest.raises(ValueError, match=f"{name} must be a number"):
            preset("toy-cars-32").replace(**{name: value})


def test_strips_are_of_epochs_that_there_are():
    with pytest.raises(ValueError, match=r"strips are of epochs 1\.\.18, got 999"):
        preset("toy-cars-32").replace(strips=(999,))
    assert preset("toy-cars-32").replace(epochs=3).strips == (1, 2)
    with pytest.raises(ValueError, match="warmup must be at most epochs = 18, got 19"):
        preset("toy-cars-32").replace(warmup=19)
