"""What a wheel has beside its modules: the weights that the first commands use.

All else is in pyproject.toml. In the wheel, `ddpm_core/shipped/` holds these weights,
and `known.json` the hashes of all that ship: `ddpm_core/datasets/places.py` reads it.
"""

import hashlib
import json
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent / "data" / "weights"
FIRST = (
    "toy-cars-32",
    "toy-cars-text-32",
    "toy-cars-clip-32",
)  # the last reads prompts
FILES = ("card.json", "weights.safetensors")


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of the files of some weights."""
    return {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in FILES}


class WithWeights(build_py):
    """Builds the modules, and puts the weights beside them."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):  # the repository has them
            return
        shipped = Path(self.build_lib) / "ddpm_core" / "shipped"
        for name in FIRST:
            (shipped / name).mkdir(parents=True, exist_ok=True)
            for file in FILES:
                shutil.copy(ROOT / name / file, shipped / name / file)
        folders = sorted(path.parent for path in ROOT.glob("*/card.json"))
        known = {folder.name: hashes(folder) for folder in folders}
        text = json.dumps(known, indent=1) + "\n"
        (shipped / "known.json").write_text(text, encoding="utf-8")


setup(cmdclass={"build_py": WithWeights})
