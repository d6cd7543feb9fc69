"""Write what the book's publisher decides to every file that repeats it.

    python book/address.py

The address of the repository comes from GITHUB_REPOSITORY, which GitHub's workflows
set, else from the remote `origin`. It goes into _config.yml, CITATION.cff and the
chapters' first cells. The authors and the version are those of pyproject.toml, the date
is that of the newest version in CHANGELOG.md. Nothing but Python is needed.
"""

import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import first_cell
from first_cell import ROOT

PATH = r"(?P<path>[\w.-]+(?:/[\w.-]+)+)/?"
FORMS = (
    re.compile(rf"(?P<web>https?://)(?:[^@/]+@)?(?P<host>[\w.-]+(?::\d+)?)/{PATH}"),
    re.compile(rf"(?:ssh|git)://(?:[^@/]+@)?(?P<host>[\w.-]+)(?::\d+)?/{PATH}"),
    re.compile(rf"(?:[\w.-]+@)(?P<host>[\w.-]+):/?{PATH}"),
)
"""How git spells the address of a remote: on the web, and two ways through ssh."""

RELEASED = re.compile(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", re.MULTILINE)

CITATION = """\
# Written by `make address` from pyproject.toml, CHANGELOG.md and the remote's address.
cff-version: 1.2.0
message: If you use this book or its library, please cite it as below.
title: Diffusion from First Principles
type: software
authors:
{authors}
version: {version}
date-released: "{date}"
license: MIT
{repository}keywords:
  - diffusion models
  - generative models
  - deep learning
  - teaching
"""


def web_address(remote: str) -> str:
    """Return a remote's address on the web; '' for a folder of this machine.

    `https://host/owner/name`, with or without `.git`, `git@host:owner/name.git` and
    `ssh://git@host/owner/name.git` name the same repository. What stands before an `@`,
    which may be a token, is left out.
    """
    for form in FORMS:
        if match := form.fullmatch(remote.strip()):
            web = match.groupdict().get("web") or "https://"
            return f"{web}{match['host']}/{match['path'].removesuffix('.git')}"
    return ""


def find_address(environment: Mapping[str, str], root: Path) -> str:
    """Return the address that the environment or the remote `origin` names, or ''.

    Raises ValueError for a GITHUB_REPOSITORY that is not OWNER/NAME.
    """
    if name := environment.get("GITHUB_REPOSITORY"):
        server = environment.get("GITHUB_SERVER_URL") or "https://github.com"
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ValueError(f"GITHUB_REPOSITORY must be OWNER/NAME, got {name!r}")
        return web_address(f"{server}/{name}")
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # no git
        return ""
    return web_address(asked.stdout) if asked.returncode == 0 else ""


def project(root: Path = ROOT) -> dict:
    """Return the table [project] of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]


def authors(root: Path = ROOT) -> list[str]:
    """Return the names of the book's authors."""
    return [author["name"] for author in project(root)["authors"]]


def cited(name: str) -> str:
    """Return an author as CITATION.cff has it: a person's last word is the family."""
    given, _, family = name.rpartition(" ")
    if not given or name.startswith("The "):
        return f"  - name: {name}"
    return f"  - family-names: {family}\n    given-names: {given}"


def citation(address: str, root: Path = ROOT) -> str:
    """Return the text of CITATION.cff.

    Raises ValueError unless the newest version in CHANGELOG.md is pyproject.toml's.
    """
    version = project(root)["version"]
    newest = RELEASED.search((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if not newest or newest[1] != version:
        got = newest[1] if newest else "none"
        raise ValueError(
            f"pyproject.toml has version {version}, the newest in CHANGELOG.md is {got}"
        )
    return CITATION.format(
        authors="\n".join(map(cited, authors(root))),
        version=version,
        date=newest[2],
        repository=f"repository-code: {address}\n" if address else "",
    )


def with_address(config: str, address: str) -> str:
    """Return the text of _config.yml with the address of the repository."""
    return first_cell.CONFIGURED.sub(rf'\g<1>"{address}"', config)


def write(address: str, root: Path = ROOT) -> None:
    """Write the address, the authors and the version to every file that has them."""
    text = citation(address, root)
    (root / "CITATION.cff").write_text(text, encoding="utf-8")
    config = root / "_config.yml"
    old = config.read_text(encoding="utf-8")
    config.write_text(with_address(old, address), encoding="utf-8")
    first_cell.main(root)


def main() -> None:
    """Find the address and write it, or say why there is none."""
    try:
        address = find_address(os.environ, ROOT)
        write(address or first_cell.address())
    except ValueError as error:
        raise SystemExit(f"make address: {error}") from None
    if not address:
        raise SystemExit(
            "make address: neither GITHUB_REPOSITORY nor the remote 'origin' names a "
            "repository on the web; the address stays "
            f"{first_cell.address() or 'unknown'}."
        )
    print(f"The book's repository is {address}")


if __name__ == "__main__":
    main()
