"""What all tests share; shapes and types are checked at run time in all of them.

But not in the drawing of the toy cars, with its millions of small calls: a test of its
own checks the types there (test_toy_cars).
"""

import shutil
import subprocess
from pathlib import Path

import jaxtyping

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "ddpm_core" / "datasets" / "toy_car_drawing.py"
TYPED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "ddpm_core").rglob("*.py")
    if path != DRAWING and path.name != "__init__.py"
]
jaxtyping.install_import_hook(TYPED, "typecheck.checker")

import pytest  # noqa: E402
import torch  # noqa: E402
from typecheck import unchecked  # noqa: E402

pytest_plugins = ["reader"]

# What takes longest: it begins first, so that all processes end at about the same time,
# and `make check` leaves it out.
SLOW = (
    "tests/test_every_page.py",
    "tests/test_pages.py",
    "tests/test_plane.py",
    "chapters/",
    "tests/test_runs.py",
    "tests/test_first_cell.py",
    "tests/test_launch.py",
    "tests/test_cli.py",
    "tests/test_exercises.py",
    "tests/test_trilemma.py",
    "tests/test_capstone.py",
    "tests/test_browser.py",
    "tests/test_doctor.py",
    "tests/test_places.py",
    "tests/test_address.py",
    "tests/test_pdf.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark and begin with what is slow; whole files stay together, in their order."""

    def place(item: pytest.Item) -> int:
        starts = [item.nodeid.startswith(path) for path in SLOW]
        return starts.index(True) if any(starts) else len(SLOW)

    for item in items:
        if place(item) < len(SLOW):
            item.add_marker("slow")
    items.sort(key=place)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of fixed seed: every test sees the same numbers in each run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def no_type_checks():
    """No shapes and types are checked at run time, as on a reader's machine."""
    with unchecked():
        yield


@pytest.fixture(scope="session")
def committed() -> list[Path]:
    """The files that git has or would take."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("this is no clone: only git knows what is committed")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in names.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    """Weights of an untrained text encoder that knows the toy cars' words."""
    from ddpm_core.clip import CLIP, CLIPConfig
    from ddpm_core.datasets.toy_cars import draw_toy_cars
    from ddpm_core.tokens import Tokenizer
    from ddpm_core.weights import save_weights

    words = Tokenizer.of(draw_toy_cars(500, size=16).captions, 16).words
    net = CLIP(CLIPConfig(words, 16, 16, 1, 2, 12, (16, 16, 32)))
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    card = {"name": "tiny-clip", "config": net.config.to_dict()}
    save_weights(folder, net.state_dict(), card)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_autoencoder(tmp_path_factory) -> str:
    """Weights of an untrained autoencoder, from 16x16 to latents of 4x4x2."""
    from ddpm_core.datasets import draw_toy_cars, to_float
    from ddpm_core.latent import LatentScaler
    from ddpm_core.neighbours.vae import VAE, VAEConfig
    from ddpm_core.weights import save_weights

    torch.manual_seed(0)
    net = VAE(VAEConfig(16, (8, 16), latent=2, spatial=True, patch=2, groups=4))
    cars = to_float(draw_toy_cars(64, size=16).images)
    latent = LatentScaler(net).fit(cars).requires_grad_(False)
    folder = tmp_path_factory.mktemp("latent") / "tiny-autoencoder"
    card = {"name": "tiny-autoencoder", "config": net.config.to_dict()}
    save_weights(folder, latent.state_dict(), card)
    return str(folder)
