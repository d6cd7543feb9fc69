"""Foreign scripts reach the pages only as pinned: whole, and with the right hash."""

import io
import os
import signal
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from sphinx.errors import ExtensionError

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))

import offline

FILES = {"main.js": b"right", "fonts/a.woff": b"font", "README.md": b"not wanted"}


def archive_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of one package, which is pinned; `answer` is what it sends."""
    archive = archive_of(FILES)
    packed = tmp_path / "packed.tgz"
    packed.write_bytes(archive)
    package = offline.Package(
        "scripts@1.0", "package/dist", r".*\.(js|woff)", offline.sha512(archive), ""
    )
    offline.unpack(packed, package, tmp_path / "files")
    package = package._replace(files=offline.files_hash(tmp_path / "files"))
    it = SimpleNamespace(answer=archive, asked=0)

    def npm(arguments, cwd, **options):
        assert arguments[-1] == "scripts@1.0"
        it.asked += 1
        if it.answer is None:
            raise OSError("no network")
        (Path(cwd) / "scripts-1.0.tgz").write_bytes(it.answer)

    monkeypatch.setattr(offline, "npm", npm)
    monkeypatch.setattr(offline, "VENDOR", tmp_path / "vendor")
    monkeypatch.setattr(offline, "PACKAGES", {"scripts": package})
    return it


def build() -> SimpleNamespace:
    config = SimpleNamespace(html_static_path=[])
    offline.use_own_copies(None, config)
    return config


def read(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


WANTED = {"main.js": b"right", "fonts/a.woff": b"font"}


def test_a_package_is_fetched_once_and_used(registry):
    assert build().html_static_path == [str(offline.VENDOR)]
    assert read(offline.VENDOR) == {f"scripts/{k}": v for k, v in WANTED.items()}
    build()
    assert registry.asked == 1


def test_another_package_under_the_same_name_stops_the_build(registry):
    registry.answer = archive_of(FILES | {"main.js": b"alert('not it')"})
    with pytest.raises(ExtensionError, match=r"scripts@1\.0 has the hash sha512-"):
        build()
    assert read(offline.VENDOR) == {}


@pytest.mark.parametrize("change", ["altered", "partial", "more", "empty"])
def test_what_lies_there_is_compared_too(registry, change):
    build()
    main = offline.VENDOR / "scripts" / "main.js"
    if change == "altered":
        main.write_bytes(b"wrong")
    elif change == "more":
        main.with_name("extra.js").write_bytes(b"alert(1)")
    else:
        main.unlink()
    if change == "empty":
        (offline.VENDOR / "scripts" / "fonts" / "a.woff").unlink()
    build()
    assert read(offline.VENDOR / "scripts") == WANTED and registry.asked == 2


def test_an_altered_copy_is_not_used_without_a_network(registry, capsys):
    build()
    (offline.VENDOR / "scripts" / "main.js").write_bytes(b"wrong")
    registry.answer = None
    assert build().html_static_path == []
    assert "could not be fetched (no network)" in capsys.readouterr().err
    assert read(offline.VENDOR) == {}


def test_a_build_killed_while_it_unpacks_leaves_nothing_that_counts(
    registry,
):
    unpack = offline.unpack

    def killed(*arguments):
        unpack(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        offline.unpack = killed
        offline.fetch("scripts", offline.PACKAGES["scripts"])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (offline.VENDOR / "scripts").exists() and read(offline.VENDOR) != {}
    build()
    assert read(offline.VENDOR) == {f"scripts/{k}": v for k, v in WANTED.items()}


def test_the_built_book_holds_what_is_pinned():
    built = [name for name in offline.PACKAGES if (offline.VENDOR / name).exists()]
    if not built:
        pytest.skip("the book has not been built here with a network")
    for name in built:
        found = offline.files_hash(offline.VENDOR / name)
        assert found == offline.PACKAGES[name].files
