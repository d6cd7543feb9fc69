"""Runs in their folder: resumed, interrupted, shared between processes, refused."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typecheck import unchecked

from ddpm_core.datasets import draw_toy_cars, to_float, write_packed
from ddpm_core.datasets.atomic import only_writer
from ddpm_core.diffusion import diffusion_loss
from ddpm_core.distillation import progressive
from ddpm_core.samplers import last
from ddpm_core.unet import UNet, UNetConfig
from ddpm_core.weights import save_weights
from ddpm_core.workshop.batches import Batches, Split, load_split
from ddpm_core.workshop.commands import train as train_command
from ddpm_core.workshop.fitting import in_parts_that_fit
from ddpm_core.workshop.folder import RunFolder, Stopped, flat, read_log, read_numbers
from ddpm_core.workshop.presets import PLAIN, Preset
from ddpm_core.workshop.run import Run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> str:
    """40 images of 16x16 in two colours."""
    rng = np.random.default_rng(0)
    images = np.zeros((40, 16, 16, 3), np.uint8)
    images[:, 4:12] = rng.integers(0, 255, (40, 1, 1, 3))
    folder = tmp_path_factory.mktemp("data") / "packed"
    write_packed(folder, images)
    return str(folder)


def tiny(packed: str, **changes) -> Preset:
    unet = UNetConfig((8, 16), (False, True), blocks=1, groups=4, dropout=0.0, patch=1)
    values = {
        "data": packed, "size": 16, "held_out": 8, "network": unet, "T": 50,
        "epochs": 3, "batch": 8, "lr": 1e-3, "log_every": 1, "checkpoint_every": 1,
        "strips": (3,), "sample_steps": 10, "flip": True,
    }  # fmt: skip
    return PLAIN.replace(**{**values, **changes})


def losses(folder: Path) -> list:
    """All that a log says except the time that it took."""
    timed = {"images_per_second", "seconds"}
    return [
        {k: v for k, v in row.items() if k not in timed} for row in read_log(folder)
    ]


def command(preset: Preset, out: Path, *more: str) -> list[str]:
    """The command line of `ddpm train` for that preset."""
    flags = []
    for name, value in flat(preset.to_dict()).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list) and name != "classes":
            flags += [flag, ",".join(map(str, value))]
        elif name not in ("kind", "classes"):
            flags += [flag, str(value)]
    return [
        "-m",
        "ddpm_core",
        "train",
        "toy-cars-32",
        "--out",
        str(out),
        *flags,
        *more,
    ]


def start(*arguments: str, env=None) -> subprocess.Popen:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    env = {**ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.Popen(
        [sys.executable, *arguments], env=env, text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finished(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return out


def train_here(preset: Preset, out: Path) -> None:
    """The same run in this process, on one thread, as fast as it is for a reader."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with unchecked(), Run.begin(out, preset) as run:
            run.train()
    finally:
        torch.set_num_threads(threads)


def contents(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """The bytes of each tensor in a file, and its metadata, which has no order."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return {k: v.numpy().tobytes() for k, v in load_file(path).items()}, metadata


def test_a_killed_run_resumes_bit_for_bit(packed, tmp_path):
    """SIGKILL in the middle; dropout on, so that all randomness is put to the test."""
    preset = tiny(packed, epochs=30, strips=(30,), network=UNetConfig(
        (8, 16), (False, True), blocks=1, groups=4, dropout=0.2
    ))  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(*command(preset, broken))
    while len(list((broken / "checkpoints").glob("*.safetensors"))) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = sorted((broken / "checkpoints").glob("*.safetensors"))[-1].name
    assert "step-00000120" not in kept  # it was killed before its end
    finished(start(*command(preset, broken, "--resume")))
    train_here(preset, whole)
    assert losses(whole) == losses(broken)
    last = "checkpoints/step-00000120.safetensors"
    assert contents(whole / last) == contents(broken / last)
    strip = "strips/epoch-0030.png"
    assert (whole / strip).read_bytes() == (broken / strip).read_bytes()


def start_pair(*arguments: str) -> subprocess.Popen:
    """Two processes that train together, on the CPU; only torchrun says so."""
    return start(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        *arguments,
    )  # fmt: skip


def assert_same_losses(one: Path, two: Path) -> None:
    ours, theirs = losses(one), losses(two)
    assert len(ours) == len(theirs) > 8
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_two_processes_train_as_one(packed, tmp_path):
    preset = tiny(packed, epochs=2, strips=())
    one, two = tmp_path / "one", tmp_path / "two"
    pair = start_pair(*command(preset, two))
    train_here(preset, one)
    finished(pair)
    assert_same_losses(one, two)
    hardware = json.loads((two / "data.json").read_text())["hardware"]
    assert hardware.startswith("cpu, 2 threads")


def test_a_lost_process_ends_the_run_which_goes_on_with_another_number(
    packed, tmp_path
):
    preset = tiny(packed, epochs=15, strips=())
    one, two = tmp_path / "one", tmp_path / "two"
    pair = start_pair(*command(preset, two))
    while not list((two / "checkpoints").glob("*.safetensors")):
        assert pair.poll() is None, pair.stdout.read()
        time.sleep(0.05)
    workers = psutil.Process(pair.pid).children()
    by_rank = {worker.environ()["RANK"]: worker for worker in workers}
    by_rank["1"].kill()
    said, _ = pair.communicate(timeout=240)
    assert pair.returncode != 0
    assert "another process of the run was lost" in said and "--resume" in said
    finished(start(*command(preset, two, "--resume")))
    train_here(preset, one)
    assert_same_losses(one, two)


def test_workers_end_with_their_launcher_and_free_the_folder(packed, tmp_path):
    preset, out = tiny(packed, epochs=10_000, strips=()), tmp_path / "run"
    pair = start_pair(*command(preset, out))
    while not list((out / "checkpoints").glob("*.safetensors")):
        assert pair.poll() is None, pair.stdout.read()
        time.sleep(0.05)
    workers = psutil.Process(pair.pid).children(recursive=True)
    assert sum("ddpm_core" in worker.cmdline() for worker in workers) == 2
    with pytest.raises(BlockingIOError), only_writer(out):
        pytest.fail("the first of the two writes here")
    pair.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert not alive, "they trained on without their launcher"
    with only_writer(out):
        steps = [row["step"] for row in read_log(out) if "loss" in row]
    assert steps == list(range(1, len(steps) + 1))
    pair.communicate()


def test_shares_of_a_batch_make_up_the_batch(packed):
    preset = tiny(packed)
    split = load_split(preset)
    whole = next(Batches(split, preset, torch.device("cpu")).since(5, 6))
    halves = [
        next(Batches(split, preset, torch.device("cpu"), rank, 2).since(5, 6))
        for rank in (0, 1)
    ]
    for tensor, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(tensor, torch.cat(parts))


def test_an_epoch_sees_each_training_image_once_and_no_held_out_one(packed):
    preset = tiny(packed, flip=False)
    split = load_split(preset)
    assert set(split.train.tolist()).isdisjoint(split.held_out.tolist())
    batches = Batches(split, preset, torch.device("cpu"))
    assert batches.steps_an_epoch == 4
    seen = torch.cat([x0 for x0, _, _ in batches.since(4, 8)])[:, :, 8, 8]
    want = torch.from_numpy(split.images[split.train.numpy(), 8, 8]) / 127.5 - 1
    assert sorted(seen.tolist()) == sorted(want.tolist())


def test_a_run_leaves_what_it_says(packed, tmp_path):
    run = Run.begin(tmp_path / "run", tiny(packed))
    run.train()
    rows = read_log(run.folder)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    held_out = [row["held_out"] for row in rows if "held_out" in row]
    assert len(held_out) == 3 and held_out[-1] == run.held_out() == run.held_out()
    assert held_out[-1] < held_out[0]
    assert len(list((run.folder / "checkpoints").iterdir())) == 2
    strip = Image.open(run.folder / "strips" / "epoch-0003.png")
    assert strip.size == (9 * 17 + 1, 4 * 17 + 1)
    again = Run.open(run.folder)
    assert again.step == again.steps == 12
    for a, b in zip(run.ema.net.parameters(), again.ema.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_stops_the_run(packed, tmp_path):
    """The checkpoint that is named is good, and its advice can be followed."""
    with Run.begin(tmp_path / "run", tiny(packed, checkpoint_every=2)) as run:
        rows = run.rows()
        for _ in range(3):
            next(rows)
        torch.nn.init.constant_(run.net.head.bias, torch.nan)
        with pytest.raises(Stopped, match=r"a number at step 4 .* Kept: .*0000002\."):
            list(rows)
    again = tiny(packed, checkpoint_every=2, lr=1e-4, clip=0.5)
    said = []
    with Run.resume(tmp_path / "run", again, say=said.append) as resumed:
        assert resumed.step == 2
        assert all(p.isfinite().all() for p in resumed.net.parameters())
        resumed.train()
    assert "changed: lr is 0.0001, it was 0.001" in said
    assert any("the learning rate goes on at" in line for line in said)
    assert Run.open(tmp_path / "run").preset.lr == 1e-4


def test_weights_that_are_no_numbers_are_not_kept(packed, tmp_path):
    """The step that spoils them has a finite loss, and a checkpoint is due after it."""
    with Run.begin(tmp_path / "run", tiny(packed)) as run:
        rows = run.rows()
        next(rows)
        next(rows)
        torch.nn.init.constant_(run.net.head.bias, torch.nan)
        with pytest.raises(Stopped, match="longer numbers at step 2.* Kept: .*0000001"):
            next(rows)
    assert [p.name for p in run.files.checkpoints()] == ["step-00000001.safetensors"]


def test_a_folder_has_one_writer(packed, tmp_path):
    with Run.begin(tmp_path / "run", tiny(packed)) as run:
        next(run.rows())
        for another in (Run.resume, Run.begin):
            with pytest.raises((OSError, ValueError), match="another process|--resume"):
                another(tmp_path / "run", tiny(packed))
        assert Run.open(tmp_path / "run").step == 0  # to look is allowed
    Run.resume(tmp_path / "run").close()


def test_a_second_process_is_refused_and_the_first_goes_on(packed, tmp_path):
    alone = tiny(packed, epochs=40, strips=())
    first = start(*command(alone, tmp_path / "run"))
    while not list((tmp_path / "run" / "checkpoints").glob("*.safetensors")):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    second = start(*command(alone, tmp_path / "run", "--resume"))
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 1 and "another process is writing" in said
    finished(first)
    steps = [row["step"] for row in read_log(tmp_path / "run") if "loss" in row]
    assert steps == list(range(1, 161))


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint(packed, tmp_path):
    run = Run.begin(tmp_path / "run", tiny(packed))
    rows = run.rows()
    next(rows), next(rows)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(Stopped, match=r"could not be written.*Kept: .*step-0"):
            list(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Run.open(run.folder).step > 0


def test_an_unreadable_checkpoint_names_the_one_before(packed, tmp_path):
    run = Run.begin(tmp_path / "run", tiny(packed))
    run.train()
    before, newest = sorted((run.folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(Stopped, match=f"{newest.name} cannot be used.*{before.name}"):
        Run.open(run.folder)
    newest.unlink()
    resumed = Run.open(run.folder)
    assert resumed.step == 11
    resumed.train()
    assert losses(run.folder)[-1]["epoch"] == 3


def test_damaged_lines_of_a_log_are_left_out_and_no_others(tmp_path):
    one, three = '{"step": 1, "loss": 0.5}', '{"step": 3, "loss": 0.25}'
    (tmp_path / "log.jsonl").write_bytes(
        f'{one}\n{{"step": 2, "\n'.encode() + b"\xff\xfe\n[]\n" + three.encode()
    )
    assert [row["step"] for row in read_log(tmp_path)] == [1, 3]
    assert RunFolder(tmp_path).damaged_lines() == [2, 3, 4]
    (tmp_path / "log.jsonl").write_text(f'{one}\n{{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.5}]
    assert RunFolder(tmp_path).damaged_lines() == []
    for damaged in ('{"step": 2, "loss": "x"}', '{"step": 2, "lr": null}', "[" * 9999):
        (tmp_path / "log.jsonl").write_text(f"{one}\n{damaged}\n{three}\n")
        assert [row["step"] for row in read_log(tmp_path)] == [1, 3]
        assert RunFolder(tmp_path).damaged_lines() == [2]
    assert read_log(tmp_path / "none") == []


def test_a_command_that_is_not_utf_8_is_read_all_the_same(tmp_path):
    (tmp_path / "commands.txt").write_bytes(b"ddpm train\nddpm \xff\n")
    assert RunFolder(tmp_path).commands() == ["ddpm train", "ddpm \ufffd"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 10_000, "is not readable"),
        ("[]", "must hold an object, got"),
        ("{}", "'loss' must be a number, got none"),
        ('{"loss": "low"}', "'loss' must be a number, got 'low'"),
        ('{"loss": true}', "'loss' must be a number, got True"),
    ],
)
def test_a_file_of_numbers_is_named_with_what_is_wrong(tmp_path, text, why):
    path = tmp_path / "row.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"row.json.*{why}"):
        read_numbers(path, ["loss"])
    path.write_text('{"loss": 0.5, "commit": "x"}')
    assert read_numbers(path, ["loss"])["loss"] == 0.5


def test_a_run_does_not_go_on_with_other_pixels(packed, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(packed, data)
    Run.begin(tmp_path / "run", tiny(str(data))).close()
    shutil.rmtree(data)
    write_packed(data, np.full((40, 16, 16, 3), 7, np.uint8))
    with pytest.raises(ValueError, match="was begun on other images \\(sha256"):
        Run.resume(tmp_path / "run")


def test_training_on_says_what_becomes_of_the_rate(packed, tmp_path):
    short, said = tiny(packed, epochs=2, strips=()), []
    with Run.begin(tmp_path / "run", short) as run:
        run.train()
    Run.resume(tmp_path / "run", short.replace(epochs=6), say=said.append).close()
    assert said[0] == "changed: epochs is 6, it was 2"
    assert "its cosine now ends after 6 epochs" in said[1]


def test_a_run_without_held_out_images_trains_to_its_end(packed, tmp_path):
    with Run.begin(tmp_path / "run", tiny(packed, held_out=0)) as run:
        run.train()
    assert not any("held_out" in row for row in read_log(tmp_path / "run"))
    assert Image.open(tmp_path / "run" / "strips" / "epoch-0003.png").size[1] == 69


def test_a_full_disk_at_resuming_loses_nothing(packed, tmp_path):
    run = Run.begin(tmp_path / "run", tiny(packed))
    run.train()
    before = {p: p.read_bytes() for p in run.folder.glob("*.json*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        Run.open(run.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p: p.read_bytes() for p in before} == before and len(before) == 3


def test_looking_at_a_run_leaves_its_log_alone(packed, tmp_path):
    run = Run.begin(tmp_path / "run", tiny(packed, checkpoint_every=5))
    rows = run.rows()
    for _ in range(7):
        next(rows)
    written = (run.folder / "log.jsonl").read_text()
    assert Run.open(run.folder).step == 5
    assert (run.folder / "log.jsonl").read_text() == written


def test_a_mistake_does_not_take_the_folder(packed, tmp_path):
    with pytest.raises(FileNotFoundError):
        Run.begin(tmp_path / "run", tiny(str(tmp_path / "nowhere")))
    assert Run.begin(tmp_path / "run", tiny(packed)).step == 0


def test_a_finished_run_can_be_trained_on(packed, tmp_path):
    Run.begin(tmp_path / "run", tiny(packed, epochs=2, strips=())).train()
    longer = Run.resume(tmp_path / "run", tiny(packed, epochs=3, strips=()))
    assert (longer.step, longer.steps) == (8, 12)
    longer.train()
    steps = [row["step"] for row in read_log(longer.folder) if "loss" in row]
    assert steps == list(range(1, 13))
    with pytest.raises(ValueError, match=r"differs in epochs \(3\)"):
        Run.resume(tmp_path / "run", tiny(packed, epochs=1, strips=()))


def test_a_batch_of_one_is_a_batch(packed):
    preset = tiny(packed, batch=1)
    x0, t, _ = next(
        Batches(load_split(preset), preset, torch.device("cpu")).since(0, 1)
    )
    assert x0.shape == (1, 3, 16, 16) and t.shape == (1,)


def test_captions_are_told_and_dropped_and_some_cars_are_never_seen(tiny_clip):
    preset = tiny(
        "toy-cars", size=16, drawn=400, text=tiny_clip, absent=("red",), flip=False,
        pooled=16, context=16, drop=0.25, batch=196,
    )  # fmt: skip
    split = load_split(preset)
    used = torch.cat([split.train, split.held_out])
    words = [split.captions[i] for i in split.caption[used]]
    assert split.captions[0] == "" and not any("red" in w.split() for w in words)
    assert 0.8 < len(used) / 408 < 0.95 and len(split.held_out) == 8
    drawn = draw_toy_cars(408, size=16, seed=preset.seed).captions
    assert words == [drawn[i] for i in used]
    batches = Batches(split, preset, torch.device("cpu"))
    x0, _, _, caption = next(batches.since(0, 1))
    shares = [(c == 0).double().mean() for *_, c in batches.since(0, 20)]
    assert torch.stack(shares).mean().item() == pytest.approx(0.25, abs=0.03)
    for image, number in zip(x0, caption, strict=True):
        (i,) = (to_float(split.images) == image).all((1, 2, 3)).nonzero()[0].tolist()
        assert number == 0 or split.captions[number] == drawn[i]


def test_a_text_run_trains_resumes_and_draws_its_captions(tiny_clip, tmp_path):
    preset = tiny(
        "toy-cars", size=16, drawn=32, text=tiny_clip, flip=False, epochs=2,
        pooled=16, context=16, strips=(2,),
    )  # fmt: skip
    run = Run.begin(tmp_path / "run", preset)
    before = [p.clone() for p in run.net.embed_condition.parameters()]
    run.train()
    after = run.net.embed_condition.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert Image.open(tmp_path / "run" / "strips" / "epoch-0002.png").size[1] == 69
    again = Run.open(tmp_path / "run")
    assert again.held_out() == run.held_out()


def test_a_latent_run_trains_on_scaled_latents_and_draws_pictures(
    tiny_autoencoder, tmp_path
):
    preset = tiny(
        "toy-cars", size=16, drawn=32, latent=tiny_autoencoder, image_channels=2,
        epochs=2, strips=(2,),
    )  # fmt: skip
    run = Run.begin(tmp_path / "run", preset)
    assert preset.flip and run.batches.images.shape == (2, 40, 2, 4, 4)
    rows = torch.tensor([3, 0])
    x0, mirrored = run.batches.clean(rows)
    pictures = to_float(run.split.images[rows.numpy()])
    torch.testing.assert_close(x0, run.latent.encode(pictures))
    torch.testing.assert_close(mirrored, run.latent.encode(pictures.flip(-1)))
    run.train()
    assert Image.open(tmp_path / "run" / "strips" / "epoch-0002.png").size[1] == 69
    again = Run.open(tmp_path / "run")
    assert again.held_out() == run.held_out()
    x = again.model.noise(3)
    assert x.shape == (3, 2, 4, 4) and again.model.decode(x).shape == (3, 3, 16, 16)
    x0_hat = again.model.denoiser()(100 * x, torch.full((3,), 1))
    assert x0_hat.abs().max() > 1  # latents are not clipped


def test_another_runs_folder_is_refused(packed, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="there is no run in .*: no config"):
        Run.resume(folder, tiny(packed))
    Run.begin(folder, tiny(packed))
    with pytest.raises(
        ValueError, match=r"another run; it differs in batch \(8\), T \(50\)"
    ):
        Run.resume(folder, tiny(packed, T=60, batch=4))
    with pytest.raises(ValueError, match="go on with --resume"):
        Run.begin(folder, tiny(packed))
    config = json.loads((folder / "config.json").read_text())
    assert Preset.from_dict(config) == tiny(packed)


def test_loose_captions_are_told_where_they_are_asked_for(tiny_clip):
    preset = tiny(
        "toy-cars", size=16, drawn=40, text=tiny_clip, flip=False, pooled=16,
        context=16, loose=True,
    )  # fmt: skip
    split = load_split(preset)
    cars = draw_toy_cars(40 + preset.held_out, size=16, seed=preset.seed)
    assert [split.captions[i] for i in split.caption] == cars.loose_captions(0)
    assert Preset.from_dict(preset.to_dict()).loose


def test_data_that_do_not_fit_are_refused(packed, tmp_path):
    with pytest.raises(ValueError, match="16 pixels wide, the run's are 32"):
        load_split(tiny(packed, size=32))
    with pytest.raises(ValueError, match="holds 40 images: too few to hold out 36"):
        load_split(tiny(packed, held_out=36))
    with pytest.raises(ValueError, match="absent is for toy cars"):
        load_split(tiny(packed, absent=("red",)))
    with pytest.raises(ValueError, match="loose is for toy cars"):
        load_split(tiny(packed, loose=True))
    text = {"text": "clip", "pooled": 4}
    with pytest.raises(ValueError, match="has no classes to make captions of"):
        load_split(tiny(packed, **text))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_split(tiny(str(tmp_path / "nowhere")))
    shutil.copytree(packed, tmp_path / "empty")
    np.save(tmp_path / "empty" / "images.npy", np.zeros((0, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError):
        load_split(tiny(str(tmp_path / "empty")))


def test_a_run_does_not_go_on_with_other_data(packed, tmp_path):
    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(packed, data)
    heard = []
    Run.begin(folder, tiny(str(data)), listener=heard.append).train()
    assert [row["step"] for row in heard if "loss" in row] == list(range(1, 13))
    shutil.rmtree(data)
    write_packed(data, np.zeros((30, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"begun on 40 images, .* now holds 30"):
        Run.open(folder)


def test_a_batch_that_cannot_be_shared_is_refused(packed):
    preset = tiny(packed, batch=6, accumulate=4)
    split = Split(np.zeros((8, 16, 16, 3), np.uint8), torch.arange(8), torch.arange(0))
    with pytest.raises(ValueError, match="multiple of 4"):
        Batches(split, preset, torch.device("cpu"))


def test_a_loss_is_weighed_as_the_preset_says(packed, tmp_path):
    plain = Run.begin(tmp_path / "plain", tiny(packed, target="v"))
    capped = Run.begin(tmp_path / "capped", tiny(packed, target="v", min_snr=5.0))
    schedule = plain.preset.model.make_schedule()
    x0, eps = torch.rand(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    t = torch.tensor([1, 10, 30, 50])
    both = [run._loss(schedule)(run.net, x0, t, eps) for run in (plain, capped)]
    snr = schedule.snr[t].float()
    torch.testing.assert_close(both[1], both[0] * snr.clamp(max=5) / (1 + snr))


def teacher(packed: str, folder: Path, **changes) -> str:
    """Weights of an untrained network, whose head is not the zero that it begins as."""
    preset = tiny(packed, **changes)
    net = UNet(preset.model.network)
    torch.nn.init.normal_(net.head.weight, std=0.2)
    card = {"name": "t", "config": preset.model.to_dict()}
    save_weights(folder, net.state_dict(), card)
    return str(folder)


def test_a_student_starts_from_its_teacher_and_learns_its_pairs(packed, tmp_path):
    told = teacher(packed, tmp_path / "teacher")
    preset = tiny(packed, teacher=told, calls=2, teacher_calls=4, epochs=1, strips=())
    run = Run.begin(tmp_path / "student", preset)
    for name, tensor in run.net.state_dict().items():
        assert torch.equal(tensor, run.teacher.net.state_dict()[name]), name
    x0, eps = torch.rand(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    t = torch.tensor([1, 10, 30, 50])
    schedule = preset.model.make_schedule()
    lesson = progressive(run.teacher.denoiser(), schedule, calls=2, teacher_calls=4)
    wanted, when, noise = lesson(x0, t, eps)
    assert when.tolist() == [25, 25, 50, 50]
    loss = run._loss(schedule)(run.net, x0, t, eps)
    plain = diffusion_loss(
        run.net, schedule, preset.model.make_target(), wanted, t=when, eps=noise
    )
    torch.testing.assert_close(loss, plain)
    run.train()
    assert len(read_log(tmp_path / "student")) == 5  # four steps and the held-out loss


def test_a_reflow_learns_the_way_from_noise_to_what_the_teacher_makes(packed, tmp_path):
    changes = {"schedule": "flow", "target": "flow"}
    told = teacher(packed, tmp_path / "teacher", **changes)
    preset = tiny(packed, teacher=told, teacher_calls=3, **changes)
    run = Run.begin(tmp_path / "student", preset)
    x0, eps = torch.rand(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    t, schedule = torch.tensor([1, 10, 30, 50]), preset.model.make_schedule()
    made = last(run.teacher.sample(eps, 3))
    loss = run._loss(schedule)(run.net, x0, t, eps)
    target = preset.model.make_target()
    plain = diffusion_loss(run.net, schedule, target, made, t=t, eps=eps)
    torch.testing.assert_close(loss, plain)


def test_a_student_is_built_as_its_teacher_is(packed, tmp_path):
    told = teacher(packed, tmp_path / "teacher", T=40)
    with pytest.raises(ValueError, match=r"which differs in T \(40\)"):
        changes = {"teacher": told, "calls": 2, "teacher_calls": 4}
        Run.begin(tmp_path / "run", tiny(packed, **changes))


def test_missing_photos_are_a_command_away(packed, tmp_path):
    preset = tiny(packed).replace(data=str(tmp_path / "cars"))
    with pytest.raises(FileNotFoundError, match=r"`ddpm prepare SOURCE --out .*cars"):
        load_split(preset)


@pytest.fixture
def small_memory(monkeypatch):
    """A memory in which the network's forward pass takes two images, and no more."""
    forward = UNet.forward

    def limited(self, x, *rest):
        if self.training and len(x) > 2:
            raise torch.OutOfMemoryError("memory is full")
        return forward(self, x, *rest)

    monkeypatch.setattr(UNet, "forward", limited)


def test_a_batch_is_taken_in_as_many_parts_as_fit(packed, small_memory):
    assert in_parts_that_fit(tiny(packed)).accumulate == 4
    with pytest.raises(RuntimeError, match="batch of 3 does not fit .* in 1 parts"):
        in_parts_that_fit(tiny(packed, batch=3))


def test_a_small_memory_is_told_or_fitted(packed, small_memory, tmp_path, capsys):
    out, options = tmp_path / "run", {"epochs": 1, "strips": "", "data": packed}
    options |= {"size": 16, "held_out": 8, "batch": 8, "channels": "8,16", "patch": 1}
    with pytest.raises(RuntimeError, match=r"--accumulate 4 fits; give it, or --fit"):
        train_command.train("toy-cars-32", out=out, **options)
    train_command.train("toy-cars-32", out=out, fit=True, resume=True, **options)
    assert "--accumulate 4 fits, and so it goes on" in capsys.readouterr().out
    assert Run.open(out).step == Run.open(out).steps


# Other networks, and classes -------------------------------------------------------


def test_a_transformer_trains_resumes_and_draws(packed, tmp_path):
    preset = tiny(packed).replace(network="dit", width=16, depth=2, heads=2)
    with Run.begin(tmp_path / "run", preset) as run:
        rows = run.rows()
        for _ in range(5):
            next(rows)
    with Run.resume(tmp_path / "run", preset) as run:
        assert run.step == 4 and run.preset.model.network.kind == "dit"
        run.train()
    assert Image.open(tmp_path / "run" / "strips" / "epoch-0003.png").size[1] == 69
    with pytest.raises(ValueError, match="it differs in depth"):
        Run.resume(tmp_path / "run", preset.replace(depth=3))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> str:
    """40 images of 16x16 in two classes, red and blue; the class of one is unknown."""
    images = np.zeros((40, 16, 16, 3), np.uint8)
    labels = np.arange(40) % 2
    images[labels == 0, ..., 0] = 255
    images[labels == 1, ..., 2] = 255
    labels[7] = -1
    folder = tmp_path_factory.mktemp("data") / "coloured"
    write_packed(folder, images, labels=labels, classes=["red", "blue"])
    return str(folder)


def test_a_model_of_classes_draws_the_class_that_is_named(coloured, tmp_path):
    preset = tiny(coloured, epochs=60, strips=(), flip=False, lr=3e-3, ema=0.9)
    preset = preset.replace(labels=True, drop=0.2, checkpoint_every=60, log_every=60)
    with Run.begin(tmp_path / "run", preset) as run:
        assert run.preset.model.classes == ("red", "blue")
        assert run.preset.model.network.pooled == 3
        assert run.split.caption[7] == 0  # no class
        run.train()
    Run.resume(tmp_path / "run", preset).close()  # the classes are the data's
    model = run.model
    x = model.noise(8, torch.Generator().manual_seed(0))
    for scale in (1.0, 2.0):
        prompts = ["red", "blue"] * 4
        drawn = last(model.sample(x, 20, prompts=prompts, scale=scale))
        redness = (drawn[:, 0] - drawn[:, 2]).mean((1, 2))
        assert (redness[0::2] > 0.5).all() and (redness[1::2] < -0.5).all()
    with pytest.raises(
        ValueError, match="unknown class 'green', of 2; the nearest: re"
    ):
        model.denoiser(["green"])


def test_a_data_set_without_classes_is_refused(packed, tmp_path):
    with pytest.raises(ValueError, match="has no classes for --labels"):
        Run.begin(tmp_path / "run", tiny(packed, labels=True))
    assert not (tmp_path / "run").exists()
