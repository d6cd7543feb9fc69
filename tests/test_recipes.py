"""The table of recipes, at a size that takes seconds. Chapter 14."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_core.datasets import draw_toy_cars, write_packed
from ddpm_core.workshop import recipes
from ddpm_core.workshop.cascade import UpsamplerRun
from ddpm_core.workshop.crops import CropRun, crop
from ddpm_core.workshop.evaluation import Extractor
from ddpm_core.workshop.folder import read_log


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Twelve steps of tiny networks on a few drawn cars, measured on their colours."""
    monkeypatch.setattr(recipes, "SECONDS", 0.01)
    monkeypatch.setattr(recipes, "WARMUP", 1)
    monkeypatch.setattr(recipes, "reference_step", lambda: recipes.REFERENCE_STEP)
    colours = Extractor("colours", lambda x: x.mean((2, 3)))
    monkeypatch.setattr(recipes.evaluation, "imagenet_extractor", lambda: colours)
    tiny = {"channels": (8, 16), "groups": 4, "held_out": 40, "batch": 8}
    monkeypatch.setattr(
        recipes,
        "RECIPES",
        {
            "pixels": recipes.Recipe("pixels", recipes.PIXELS | tiny | {"patch": 4}),
            "cascade": recipes.Recipe(
                "cascade",
                recipes.PIXELS | tiny | {"patch": 4, "image_channels": 6},
                kind=UpsamplerRun,
            ),
        },
    )
    write_packed(tmp_path / "photos", draw_toy_cars(90, size=64).images)
    recipes.judge.cache_clear()
    return {
        "data": str(tmp_path / "photos"),
        "out": tmp_path / "out",
        "runs": tmp_path / "runs",
        "minutes": 0.01,
        "n": 32,
        "calls": 2,
    }


def test_what_is_measured_on_other_photos_is_another_row(tmp_path):
    path = tmp_path / "results.json"
    key = {"row": "pixels", "n": 32}
    path.write_text(json.dumps({"rows": [key | {"data": "photos"}]}))
    assert recipes.is_measured(tmp_path, key, "photos")
    assert not recipes.is_measured(tmp_path, key, "other photos")
    assert not recipes.is_measured(tmp_path, key | {"n": 64}, "photos")
    path.write_text(json.dumps({"rows": [key]}))  # of an earlier version
    assert recipes.is_measured(tmp_path, key, "photos")


def test_rows_are_trained_measured_and_not_repeated(small, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ddpm", "recipes", "pixels"])
    recipes.main(["pixels", "cascade"], **small, t_ends="0")
    rows = recipes.read(small["out"])
    assert [row["row"] for row in rows] == ["pixels", "cascade"]
    for row in rows:
        assert row["frechet"] > 0 and row["images seen"] == 8 * row["steps"]
        assert row["core minutes"] >= 0
        assert row["command"] == "ddpm recipes pixels"
    assert rows[1]["parameters"] > rows[0]["parameters"]  # 6 channels in and out
    assert len(list(small["out"].glob("*.webp"))) == 2
    text = (small["out"] / "results.json").read_text()
    recipes.main(["pixels", "cascade"], **small, t_ends="0")
    assert (small["out"] / "results.json").read_text() == text
    recipes.main(["pixels"], **small, t_ends="0,200", only="measure")
    rows = recipes.read(small["out"])
    assert [(r["row"], r["t_end"]) for r in rows[2:]] == [("pixels", 200)]
    assert rows[2]["steps"] == rows[0]["steps"]  # the same run, sampled otherwise


def test_crops_are_the_same_square_of_image_and_noise():
    x = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6).float()
    cut = crop(x, torch.tensor([[0, 3], [2, 1]]))
    assert cut.shape == (2, 3, 3, 3)
    assert torch.equal(cut[0], x[0, :, :3, 3:])
    assert torch.equal(cut[1], x[1, :, 2:5, 1:4])


def test_a_step_trains_on_whole_images_and_on_crops(small, tmp_path):
    recipe = recipes.RECIPES["pixels"]
    chosen = recipe.preset(0, data=small["data"])
    seen = []
    with CropRun.begin(tmp_path / "run", chosen) as run:
        loss = run._loss(run.preset.model.make_schedule())
        x0, t, eps, *_ = next(run.batches.since(0, 1))

        class Zero(torch.nn.Module):
            def forward(self, x_t, t, cond):
                seen.append(tuple(x_t.shape))
                return torch.zeros_like(x_t)

        found = loss(Zero(), x0, t, eps)
    assert seen == [(2, 3, 64, 64), (6, 3, 32, 32)] and found.shape == (8,)


def test_a_row_that_was_stopped_goes_on(small):
    recipe, folder = recipes.RECIPES["pixels"], small["runs"] / "pixels-1-0"
    chosen = recipe.preset(0, data=small["data"], log_every=1, checkpoint_every=2)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text('{"steps": 5}')
    with recipes.open_run(folder, recipe, chosen) as run:
        run.steps = 5
        for row in run.rows():
            if row["step"] == 4:  # as if it was lost here: step 2 was kept
                break
    with recipes.open_run(folder, recipe, chosen) as run:
        assert run.step == 2
    recipes.train(recipe, chosen, folder, 1.0)
    found = json.loads((folder / "row.json").read_text())
    assert found["steps"] == 5 and found["images seen"] == 40
    steps = [row["step"] for row in read_log(folder) if "loss" in row]
    assert steps == [1, 2, 3, 4, 5]


def test_an_unknown_row_is_refused(small):
    with pytest.raises(ValueError, match="unknown recipe 'pixel'; there is: pixels"):
        recipes.main(["pixel"], **small)


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"only": "meassure"}, "unknown half of the work 'meassure'"),
        ({"t_ends": "1000"}, "t_end must"),
        ({"t_ends": "a"}, "--t-ends takes numbers in 0.."),
        ({"seeds": "-1"}, "--seeds takes numbers in 0.."),
        ({"calls": 1001}, "steps must lie in 1..1000, got 1001"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(small, changed, answer):
    with pytest.raises(ValueError, match=answer):
        recipes.main(["pixels"], **small | changed)
    assert not small["runs"].exists() and not small["out"].exists()


def test_transformers_cost_about_as_much_an_image_as_the_unet():
    def flop(name):
        net = recipes.RECIPES[name].preset(0).model.network.build()
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, 32, 32), torch.ones(1, dtype=torch.int64))
        return counter.get_total_flops()

    for name in ("dit-patch-2", "dit-patch-4"):
        assert flop(name) == pytest.approx(flop("small-images"), rel=0.07)


def test_every_row_is_a_preset_that_can_be():
    for name, recipe in recipes.RECIPES.items():
        chosen = recipe.preset(3)
        assert chosen.seed == 3 and json.dumps(chosen.to_dict()), name
        channels = (
            3 if recipe.kind is UpsamplerRun else chosen.model.network.image_channels
        )
        assert channels in (3, 4)
