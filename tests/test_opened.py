"""Models from weights, from a run's folder, with a LoRA; and runs that start so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_export import TINY as EXPORTED

from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.models import load_model
from ddpm_core.workshop.cards import card_text
from ddpm_core.workshop.export import export
from ddpm_core.workshop.opened import deepened, is_run, open_model, trained_as
from ddpm_core.workshop.run import Run

TINY = EXPORTED.replace(size=16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, its weights, a run with a LoRA that starts from them, and that LoRA."""
    folder = tmp_path_factory.mktemp("opened")
    Run.begin(folder / "run", TINY).train()
    export(folder / "run", folder / "weights", steps=2, measure=False)
    write_packed(folder / "own", draw_toy_cars(96, size=16, seed=5).images)
    more = TINY.replace(
        data=str(folder / "own"), start_from=str(folder / "weights"), lora=2, ema=0.5,
        held_out=32, lr=0.01,
    )  # fmt: skip
    Run.begin(folder / "lora-run", more).train()
    export(folder / "lora-run", folder / "lora", n=64, steps=2)
    return folder


def answer(model) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, *model.shape, generator=g)
    return model.denoiser()(x, torch.tensor([1, 10, 20]))


def test_a_run_is_opened_without_its_data(made):
    assert is_run(made / "run") and not is_run(made / "weights")
    exported, run = open_model(made / "weights"), open_model(made / "run")
    torch.testing.assert_close(answer(run), answer(exported), rtol=0, atol=0.02)
    assert trained_as(made / "run") == trained_as(made / "weights") == TINY


def test_a_run_without_a_checkpoint_says_so(made, tmp_path):
    Run.begin(tmp_path / "new", TINY).close()
    with pytest.raises(FileNotFoundError, match="no checkpoint yet: one is written"):
        open_model(tmp_path / "new")


def test_a_lora_is_small_and_has_a_card_of_its_own(made):
    card = json.loads((made / "lora" / "card.json").read_text())
    assert card["kind"] == "lora"
    base = json.loads((made / "weights" / "card.json").read_text())
    assert card["config"]["sha256 of base"] == base["sha256"]
    files = [made / name / "weights.safetensors" for name in ("lora", "weights")]
    assert files[0].stat().st_size < files[1].stat().st_size
    words = (made / "lora" / "README.md").read_text()
    assert words == card_text(card) and "A change of rank 2 (LoRA)" in words
    assert trained_as(made / "lora").lora == 2


def test_a_lora_is_what_its_run_trained(made):
    alone, added = (
        open_model(made / "lora"),
        open_model(made / "weights", lora=made / "lora"),
    )
    assert torch.equal(answer(alone), answer(added))
    run = open_model(made / "lora-run")
    torch.testing.assert_close(answer(run), answer(added), rtol=0, atol=0.01)
    before = answer(open_model(made / "weights"))
    assert (answer(added) - before).abs().max() > 0.02


def test_the_scale_of_a_lora_goes_from_nothing_to_all(made):
    file = made / "lora" / "weights.safetensors"
    none = open_model(made / "weights", lora=file, lora_scale=0.0)
    assert torch.equal(answer(none), answer(load_model(made / "weights")))
    part = open_model(made / "weights", lora=file, lora_scale=0.8)
    assert not torch.equal(answer(part), answer(none))


def changed_card(made, tmp_path, **config) -> Path:
    """The LoRA, with another configuration on its card."""
    shutil.copytree(made / "lora", tmp_path / "lora")
    path = tmp_path / "lora" / "card.json"
    card = json.loads(path.read_text())
    card["config"] |= config
    path.write_text(json.dumps(card))
    return path.parent


@pytest.mark.parametrize("base", [None, 7, "", []])
def test_a_lora_whose_card_names_no_model_is_refused(made, tmp_path, base):
    with pytest.raises(ValueError, match=r"card\.json, 'config': 'base' must be text"):
        open_model(changed_card(made, tmp_path, base=base))


@pytest.mark.parametrize("known", ["", "0" * 64])
def test_a_lora_of_itself_is_refused(made, tmp_path, known):
    base = {"base": str(tmp_path / "lora"), "sha256 of base": known}
    folder = changed_card(made, tmp_path, **base)
    for look in (open_model, trained_as):
        with pytest.raises(ValueError, match="'base' leads back to this LoRA"):
            look(folder)


def test_a_lora_of_weights_that_have_changed_is_refused(made, tmp_path):
    folder = changed_card(made, tmp_path, **{"sha256 of base": "0" * 64})
    with pytest.raises(ValueError, match="was trained for other weights .* --lora"):
        open_model(folder)
    added = open_model(made / "weights", lora=folder)  # as the message says
    assert torch.equal(answer(added), answer(open_model(made / "lora")))


def test_a_lora_beside_a_lora_is_refused(made):
    with pytest.raises(ValueError, match="is a LoRA already: name its model beside"):
        open_model(made / "lora", lora=made / "lora")


def test_only_the_change_is_trained_and_a_resumed_run_goes_on(made):
    run = Run.open(made / "lora-run")
    for name, tensor in open_model(made / "weights").net.state_dict().items():
        inner = name.rpartition(".")
        kept = run.net.state_dict().get(f"{inner[0]}.layer.{inner[2]}")
        kept = run.net.state_dict()[name] if kept is None else kept
        assert torch.equal(kept, tensor), name
    longer = run.preset.replace(epochs=3)
    with Run.resume(made / "lora-run", longer, say=lambda text: None) as resumed:
        assert resumed.step == run.steps < resumed.steps


@pytest.mark.parametrize(
    "more",
    [
        {"blocks": 2},
        {"blocks": 3, "attention": (True, True)},
        {"attention": (True, True)},
    ],
)
def test_a_deeper_network_starts_as_the_one_it_comes_from(made, tmp_path, more):
    torch.manual_seed(0)
    start = open_model(made / "weights")
    for weight in start.net.parameters():
        weight.data += 0.1 * torch.randn(weight.shape)
    preset = TINY.replace(**more)
    deeper = preset.model.make_network().eval()
    deeper.load_state_dict(deepened(start.net, preset.model.network))
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([0, 7, 19])
    torch.testing.assert_close(deeper(x, t), start.net(x, t), atol=1e-5, rtol=1e-5)
    deeper(x, t).square().sum().backward()
    assert deeper.up[0].residuals[0].conv2.weight.grad.abs().max() > 0
    begun = preset.replace(start_from=str(made / "weights"), epochs=1)
    with Run.begin(tmp_path / "deeper", begun) as run:
        assert run.model.config.network.blocks == preset.model.network.blocks


def test_what_fits_no_start_is_refused(made, tmp_path):
    start = str(made / "weights")
    with pytest.raises(ValueError, match=r"differs in T \(20\)"):
        Run.begin(tmp_path / "x", TINY.replace(start_from=start, T=30))
    with pytest.raises(ValueError, match="differs in channels"):
        Run.begin(tmp_path / "x", TINY.replace(start_from=start, channels=(8, 8)))
    with pytest.raises(ValueError, match="name them with --from"):
        TINY.replace(lora=4)
    with pytest.raises(ValueError, match="is no LoRA but a diffusion"):
        open_model(start, lora=start)


def test_export_without_measuring_draws_nothing(made):
    card = json.loads((made / "weights" / "card.json").read_text())
    assert card["measured"] == {}
    words = (made / "weights" / "README.md").read_text()
    assert "Nothing yet: no samples were drawn." in words
    assert "samples.webp" not in words
    names = {path.name for path in (made / "weights").iterdir()}
    assert names == {"card.json", "weights.safetensors", "README.md", "losses.webp"}


def test_export_measures_what_the_data_allow_and_says_it(made, tmp_path):
    said = []
    run = tmp_path / "run"
    Run.begin(run, TINY.replace(data=str(made / "own"), held_out=32, epochs=1)).train()
    card = export(run, tmp_path / "out", steps=2, say=said.append)
    assert "draws 64 samples of 2 steps each to look for copies" in said[0]
    assert "about" in said[0] and card["commands"][-1].endswith("--n 64 --steps 2")
    with pytest.raises(ValueError, match="32 images were held out, 64 are needed"):
        export(run, tmp_path / "more", steps=2, features="imagenet")
