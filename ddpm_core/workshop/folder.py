"""The files of a training run, and the changes that they refuse. Chapter 07.

- `config.json`: the preset; `data.json`: how many images, on what hardware;
  `commands.txt`: how it was started and resumed
- `log.jsonl`: the losses, one JSON object a line
- `checkpoints/`: the last two; `strips/`: reverse stages from one fixed noise
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ddpm_core.datasets.atomic import written_file
from ddpm_core.values import quoted
from ddpm_core.workshop.presets import Preset

KEPT = 2  # checkpoints
CHANGEABLE = frozenset(
    "epochs lr lr_end warmup clip accumulate compile graphs precision strips "
    "sample_steps log_every checkpoint_every".split()
)
"""The options that a resumed run may change: none of them changes model or data."""


class Stopped(RuntimeError):
    """The run cannot go on; the message says why and what is kept."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. Writing raises `Stopped` where the disk is full."""

    path: Path

    def check_free(self, preset: Preset) -> None:
        """Refuse to begin a run in a folder that holds one already."""
        if not (self.path / "config.json").exists():
            return
        differing = differences(preset, self.preset())
        if differing:
            raise ValueError(
                f"{self.path} holds another run; it differs in "
                + listed(differing)
                + ": give these values, or another --out"
            )
        raise ValueError(
            f"{self.path} holds this run already: go on with --resume, or give another "
            "--out"
        )

    def check_resumable(self, preset: Preset) -> dict[str, tuple]:
        """Return what changes from the stored run to `preset`: name -> (old, new).

        Raises ValueError where it changes more than `CHANGEABLE`, which leaves model
        and data alone, or trains for fewer epochs.
        """
        changes = differences(preset, self.preset())
        kept = {k: v for k, v in changes.items() if k not in CHANGEABLE}
        if "epochs" in changes and changes["epochs"][1] < changes["epochs"][0]:
            kept["epochs"] = changes["epochs"]
        if kept:
            raise ValueError(
                f"{self.path} holds another run; it differs in {listed(kept)}: give "
                "these values, or another --out"
            )
        return changes

    def check_same(self, preset: Preset) -> None:
        """Refuse to take what stands here, if anything does, for this preset's run."""
        if not (self.path / "config.json").exists():
            return
        if changes := self.check_resumable(preset):
            raise ValueError(
                f"{self.path} holds another run; it differs in {listed(changes)}: "
                "remove it, or name another place"
            )

    def check_data(self, preset: Preset, facts: dict) -> None:
        """Refuse to go on with other images than the run was begun with."""
        known = self.read("data.json")
        if known.get("images", facts["images"]) != facts["images"]:
            raise ValueError(
                f"{self.path} was begun on {known['images']} images, {preset.data} now "
                f"holds {facts['images']}: start a new run with another --out"
            )
        if known.get("sha256", facts["sha256"]) != facts["sha256"]:
            raise ValueError(
                f"{self.path} was begun on other images (sha256 "
                f"{str(known['sha256'])[:12]}...) than {preset.data} now holds "
                f"({facts['sha256'][:12]}...): start a new run with another --out"
            )

    def claim(self, preset: Preset, facts: dict) -> None:
        """Take the folder for this run, and note what is known of it."""
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.path / "strips").mkdir(exist_ok=True)
        config = json.dumps(preset.to_dict(), indent=1) + "\n"
        self.write("config.json", config)
        self.write("data.json", json.dumps(facts) + "\n")

    def read(self, name: str) -> dict:
        """Read a JSON file of the run; empty where there is none yet."""
        path = self.path / name
        return read_object(path) if path.exists() else {}

    def preset(self) -> Preset:
        """The preset of the run; FileNotFoundError where there is no run."""
        config = self.read("config.json")
        if not config:
            raise FileNotFoundError(f"there is no run in {self.path}: no config.json")
        try:
            return Preset.from_dict(config)
        except ValueError as error:
            raise ValueError(f"{self.path / 'config.json'}: {error}") from error

    def note_command(self, command: str) -> None:
        """Keep the command that this run was started or resumed with."""
        self._append("commands.txt", command)

    def commands(self) -> list[str]:
        """The commands that this run was made with."""
        path = self.path / "commands.txt"
        if not path.exists():
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()

    def log(self, row: dict) -> None:
        """Add a row to the log."""
        self._append("log.jsonl", json.dumps(row))

    def trim_log(self, step: int) -> None:
        """Drop what was logged after the checkpoint from which the run goes on."""
        rows = [row for row in read_log(self.path) if row["step"] <= step]
        self.write("log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of that step lies."""
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def checkpoints(self) -> list[Path]:
        """The checkpoints there are, the newest last."""
        return sorted((self.path / "checkpoints").glob("step-*.safetensors"))

    def drop_old_checkpoints(self) -> None:
        """Keep the last two."""
        for old in self.checkpoints()[:-KEPT]:
            old.unlink()

    def kept(self) -> str:
        """Say which checkpoint a stopped run can go on from."""
        kept = self.checkpoints()
        return f"Kept: {kept[-1]}." if kept else "No checkpoint had been written yet."

    def damaged_lines(self) -> list[int]:
        """The numbers of the log's damaged lines; a last one cut short is none."""
        rows = _log_lines(self.path)
        return [i for i, row in enumerate(rows[:-1], 1) if row is None]

    def _append(self, name: str, line: str) -> None:
        path = self.path / name
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise Stopped(
                f"{path} cannot be written: {error}. {self.kept()}"
            ) from error

    def write(self, name: str, text: str) -> None:
        """Write a small file whole or not at all; what stands there already is left."""
        path = self.path / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise Stopped(f"{path} could not be written: {error}") from error


def read_log(folder: Path) -> list[dict]:
    """Read the rows of a run's log; damaged lines are left out."""
    return [row for row in _log_lines(folder) if row is not None]


def _log_lines(folder: Path) -> list[dict | None]:
    path = folder / "log.jsonl"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [_row(line) for line in text.splitlines()]


def _row(line: str) -> dict | None:
    """A row of the log; None for a line that is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and type(row.get("step")) is int
    return row if whole and all(type(v) in (int, float) for v in row.values()) else None


def read_object(path: Path) -> dict:
    """Read a JSON object; ValueError names the file where it holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold an object, got {quoted(values)}")
    return values


def read_numbers(path: Path, names: Iterable[str]) -> dict:
    """Read a JSON object; ValueError names the file and a field that is no number."""
    values = read_object(path)
    for name in names:
        if type(values.get(name)) not in (int, float):
            got = quoted(values[name]) if name in values else "none"
            raise ValueError(f"{path}: {name!r} must be a number, got {got}")
    return values


def write_object(path: Path, values: dict) -> None:
    """Write a JSON object, whole or not at all."""
    with written_file(path) as new:
        new.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def differences(new: Preset, old: Preset) -> dict[str, tuple]:
    """What differs between two presets, by the name of the option: (old, new)."""
    a, b = flat(old.to_dict()), flat(new.to_dict())
    names = [*b, *sorted(a.keys() - b.keys())]
    names = [name for name in names if a.get(name) != b.get(name)]
    return {name: (a.get(name), b.get(name)) for name in names}


def flat(values: dict) -> dict:
    """The fields of a preset, of its model and of its network, side by side."""
    parts = {k: v for k, v in values.items() if not isinstance(v, dict)}
    for inner in (v for v in values.values() if isinstance(v, dict)):
        parts |= flat(inner)
    return parts


def listed(changes: dict[str, tuple]) -> str:
    """Name what differs, with the values of the stored run."""
    return ", ".join(f"{name} ({old})" for name, (old, _) in changes.items())
