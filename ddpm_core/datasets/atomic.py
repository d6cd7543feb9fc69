"""How a command writes its results: under a temporary name, which is then changed.

Whenever a writer is killed, readers find the old result or the new one, never a part. A
result has one writer at a time.
"""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class NoRoom(OSError):
    """The disk is too small, or became full; what was there is unchanged."""


LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # what file managers leave


@contextmanager
def written_file(path: str | Path) -> Iterator[Path]:
    """Yield the path of a new file, which becomes `path` if all goes well.

    It has the ending of `path`, so that libraries know the format. Enter before the
    work begins: whatever prevents the file is raised at once, as an OSError of one
    line. Anything raised inside leaves `path` as it was.
    """
    path = Path(path).resolve()
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: name a file in it")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{str(path)!r} is no regular file: name another place")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{str(path)!r} is write-protected: name another place")
    with _parent(path), only_writer(path), _told_when_full(path):
        new = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            new.unlink(missing_ok=True)  # a killed writer's
            new.touch()
            yield new
            _put_on_disk(new)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)


@contextmanager
def written_folder(
    path: str | Path,
    *,
    names: Collection[str],
    is_ours: Callable[[Path], bool] = lambda folder: True,
) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `path` if all goes well.

    `names`: what such a folder may hold; the first is always there, and `is_ours` may
    look into it. Only an empty folder, or one that holds nothing else, is replaced;
    FileExistsError names what is in the way. Enter before the work begins. Anything
    raised inside leaves `path` as it was. Readers find the folder by `current_folder`.
    """
    path = Path(path).resolve()  # a link's target is replaced, the link stays
    if Path.cwd().is_relative_to(path) or os.path.ismount(path):
        raise FileExistsError(
            f"{str(path)!r} is the current folder, one around it or a whole disk, "
            "which cannot be replaced: name a new folder in it"
        )
    with _parent(path), only_writer(path), _told_when_full(path):
        _restore(path)
        _check_ours(path, names, is_ours)
        new = path.with_name(f".{path.name}.partial")
        shutil.rmtree(new, ignore_errors=True)  # a killed writer's
        new.mkdir()
        try:
            yield new
            for file in new.rglob("*"):
                _put_on_disk(file)
            _check_ours(path, names, is_ours)  # it may have been filled meanwhile
            _swap_in(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def current_folder(path: str | Path) -> Path:
    """Return where a written folder lies: beside `path` while it is being replaced.

    A swap that was cut off between its two moves is undone.
    """
    path = Path(path).resolve()
    if path.exists() or not _previous(path).exists():
        return path
    with suppress(OSError), only_writer(path):  # refused where its writer is alive
        _restore(path)
    return path if path.exists() else _previous(path)


@contextmanager
def only_writer(path: str | Path) -> Iterator[None]:
    """Be the only process that writes `path`; the lock ends with its process.

    Raises BlockingIOError where another one writes it. The lock is a file beside it.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    while True:
        file = open(lock, "ab")  # noqa: SIM115, it is closed below
        if not _locked(file):
            file.close()
            raise BlockingIOError(
                f"another process is writing {str(path)!r}: wait for its end, or name "
                "another place"
            )
        with suppress(FileNotFoundError):  # its last holder may have removed it
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                break
        file.close()
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
        file.close()


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise NoRoom unless the disk of `folder` has that many bytes free."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise NoRoom(
            errno.ENOSPC,
            f"the disk has {free / 1e6:,.0f} MB free, and {needed_bytes / 1e6:,.0f} MB "
            "are needed",
            str(folder.parent),
        )


def _locked(file: BinaryIO) -> bool:
    """Lock an open file; False where another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # some network file systems have no locks: one goes on without
        pass
    return True


@contextmanager
def _parent(path: Path) -> Iterator[None]:
    """Make the folders around `path`, and remove them again if nothing came of it."""
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for folder in made:
                folder.rmdir()


@contextmanager
def _told_when_full(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or type(error) is NoRoom:
            raise
        raise NoRoom(
            errno.ENOSPC, "the disk is full; nothing was changed", str(path)
        ) from error


def _put_on_disk(path: Path) -> None:
    if path.is_file():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def _check_ours(
    path: Path, names: Collection[str], is_ours: Callable[[Path], bool]
) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{str(path)!r} is no folder: name another place")
    found = {entry.name for entry in path.iterdir()} - LITTER
    others = sorted(found - set(names))
    if found and (others or next(iter(names)) not in found or not is_ours(path)):
        raise FileExistsError(
            f"{str(path)!r} holds {(others or sorted(found))[0]!r}, which does not "
            "come from this command; nothing is replaced: name a new folder"
        )


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _restore(path: Path) -> None:
    if not path.exists() and _previous(path).exists():
        os.replace(_previous(path), path)


def _swap_in(folder: Path, path: Path) -> None:
    """Put `folder` in the place of `path`; a full folder cannot be replaced in one."""
    shutil.rmtree(_previous(path), ignore_errors=True)
    if path.exists():
        os.replace(path, _previous(path))
    try:
        os.replace(folder, path)
    except OSError:
        _restore(path)
        raise
    shutil.rmtree(_previous(path), ignore_errors=True)
