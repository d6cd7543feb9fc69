"""What all tests share; shapes and types are checked at run time in all of them."""

from jaxtyping import install_import_hook

install_import_hook("ddpm_core", "typecheck.checker")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of fixed seed: every test sees the same numbers in each run."""
    return torch.Generator().manual_seed(0)
