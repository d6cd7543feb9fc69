"""A folder that is replaced as a whole: readers find the old one or the new one."""

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED_SECONDS = 3600  # a folder this long untouched has no writer any more


@contextmanager
def replaced_folder(
    path: str | Path, *, replaceable: Callable[[Path], bool], needed_bytes: int = 0
) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes `path` when all has gone well.

    Whatever is raised meanwhile leaves `path` as it was and removes the new folder.
    Raises FileExistsError where something is at `path` that is not `replaceable`,
    OSError where the disk has no room for `needed_bytes` or fills up.
    """
    path = Path(path).resolve()  # a link's target is replaced, the link stays
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(path)
    if path.exists() and not replaceable(path):
        raise FileExistsError(
            errno.EEXIST, "something else is there, and it is not replaced", str(path)
        )
    _clear_abandoned(path)
    _check_room(path.parent, needed_bytes)
    folder = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        yield folder
        _swap_in(folder, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            errno.ENOSPC, "the disk is full; nothing was changed", str(path)
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Bring back the earlier folder if a swap was cut off between its two moves."""
    if not path.exists() and _previous(path).exists():
        os.replace(_previous(path), path)


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _swap_in(folder: Path, path: Path) -> None:
    """Put `folder` in the place of `path`; a full folder cannot be replaced in one."""
    shutil.rmtree(_previous(path), ignore_errors=True)
    if path.exists():
        os.replace(path, _previous(path))
    try:
        os.replace(folder, path)
    except OSError:
        restore_folder(path)
        raise
    shutil.rmtree(_previous(path), ignore_errors=True)


def _clear_abandoned(path: Path) -> None:
    """Remove what writers of the same folder left behind when they were killed."""
    for folder in path.parent.glob(f".{path.name}.partial-*"):
        touched = max(file.stat().st_mtime for file in [folder, *folder.iterdir()])
        if time.time() - touched > ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _check_room(parent: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(parent).free
    if needed_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"the disk has {free / 1e6:,.0f} MB free, and {needed_bytes / 1e6:,.0f} MB "
            "are needed",
            str(parent),
        )
