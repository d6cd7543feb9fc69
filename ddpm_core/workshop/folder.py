"""The files of a training run, and what they refuse. Chapter 07.

- `config.json`: the preset; `data.json`: how many images, on what hardware;
  `commands.txt`: how it was started and resumed
- `log.jsonl`: the losses, one JSON object a line
- `checkpoints/`: the last two; `strips/`: reverse stages from one fixed noise
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ddpm_core.workshop.presets import Preset

KEPT = 2  # checkpoints
MEANS = ("accumulate", "compile", "graphs")  # they change rounding alone


class Stopped(RuntimeError):
    """The run cannot go on; the message says why and what is kept."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. Writing raises `Stopped` where the disk is full."""

    path: Path

    def check(self, preset: Preset, *, resume: bool) -> None:
        """Refuse another run's folder, and this run's own unless it is resumed."""
        if not (self.path / "config.json").exists():
            if resume:
                raise ValueError(f"there is no run in {self.path} to resume")
            return
        config, old = preset.to_dict(), self.preset().to_dict()
        differing = sorted(k for k in config if config[k] != old[k])
        if resume and config["epochs"] > old["epochs"]:
            differing = [k for k in differing if k != "epochs"]  # train on, longer
        if resume:
            differing = [k for k in differing if k not in MEANS]
        if differing:
            raise ValueError(
                f"{self.path} holds another run; it differs in "
                + ", ".join(f"{k} ({old[k]})" for k in differing)
                + ": give these values, or another --out"
            )
        if not resume:
            raise ValueError(
                f"{self.path} holds this run already: go on with --resume, or "
                "give another --out"
            )

    def check_data(self, preset: Preset, images: int) -> None:
        """Refuse to go on with other images than the run was begun with."""
        known = self.read("data.json").get("images", images)
        if known != images:
            raise ValueError(
                f"{self.path} was begun on {known} images, {preset.data} now "
                f"holds {images}: start a new run with another --out"
            )

    def claim(self, preset: Preset, facts: dict) -> None:
        """Take the folder for this run, and note what is known of it."""
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.path / "strips").mkdir(exist_ok=True)
        config = json.dumps(preset.to_dict(), indent=1) + "\n"
        self._write("config.json", config)
        self._write("data.json", json.dumps(facts) + "\n")

    def read(self, name: str) -> dict:
        """Read a JSON file of the run; empty where there is none yet."""
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else {}

    def preset(self) -> Preset:
        """The preset of the run; FileNotFoundError where there is no run."""
        config = self.read("config.json")
        if not config:
            raise FileNotFoundError(f"there is no run in {self.path}: no config.json")
        return Preset.from_dict(config)

    def note_command(self, command: str) -> None:
        """Keep the command that this run was started or resumed with."""
        self._append("commands.txt", command)

    def commands(self) -> list[str]:
        """The commands that this run was made with."""
        path = self.path / "commands.txt"
        return path.read_text().splitlines() if path.exists() else []

    def log(self, row: dict) -> None:
        """Add a row to the log."""
        self._append("log.jsonl", json.dumps(row))

    def trim_log(self, step: int) -> None:
        """Drop what was logged after the checkpoint from which the run goes on."""
        rows = [row for row in read_log(self.path) if row["step"] <= step]
        self._write("log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

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

    def _append(self, name: str, line: str) -> None:
        path = self.path / name
        try:
            with path.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            raise Stopped(
                f"{path} cannot be written: {error}. {self.kept()}"
            ) from error

    def _write(self, name: str, text: str) -> None:
        """Write a small file whole or not at all; what stands there already is left."""
        path = self.path / name
        if path.exists() and path.read_text() == text:
            return
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(text)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise Stopped(f"{path} could not be written: {error}") from error


def read_log(folder: Path) -> list[dict]:
    """Read the rows of a run's log; a last line that was cut short is left out."""
    rows = []
    path = folder / "log.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
