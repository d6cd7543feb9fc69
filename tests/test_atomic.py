import errno
import os
import shutil
import subprocess
import sys
import time

import pytest

from ddpm_core.datasets import atomic
from ddpm_core.datasets.atomic import replaced_folder, restore_folder


def anything(path):
    return True


def write(path, text):
    with replaced_folder(path, replaceable=anything) as folder:
        (folder / "text").write_text(text)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    write(tmp_path / "deep" / "cache", "old")
    write(tmp_path / "deep" / "cache", "new")
    assert (tmp_path / "deep" / "cache" / "text").read_text() == "new"
    assert names(tmp_path / "deep") == ["cache"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    write(tmp_path / "cache", "old")
    with (
        pytest.raises(error),
        replaced_folder(tmp_path / "cache", replaceable=anything) as folder,
    ):
        (folder / "text").write_text("half")
        raise error
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert names(tmp_path) == ["cache"]


def test_a_failed_swap_brings_the_old_folder_back(tmp_path, monkeypatch):
    write(tmp_path / "cache", "old")
    replace = os.replace

    def refuse_new(source, target):
        if ".partial-" in str(source):
            raise PermissionError("the new folder cannot be moved")
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", refuse_new)
    with pytest.raises(PermissionError):
        write(tmp_path / "cache", "new")
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert names(tmp_path) == ["cache"]


def test_a_swap_cut_off_between_its_moves_is_mended(tmp_path):
    write(tmp_path / "cache", "old")
    (tmp_path / "cache").rename(tmp_path / ".cache.previous")
    restore_folder(tmp_path / "cache")
    assert (tmp_path / "cache" / "text").read_text() == "old"


def test_what_a_killed_writer_left_is_removed_later(tmp_path):
    write(tmp_path / "cache", "old")
    script = (
        "import os, sys\n"
        "from ddpm_core.datasets.atomic import replaced_folder\n"
        "with replaced_folder(sys.argv[1], replaceable=bool) as folder:\n"
        "    (folder / 'text').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "cache"], check=False)
    assert (tmp_path / "cache" / "text").read_text() == "old"
    (left,) = set(names(tmp_path)) - {"cache"}
    write(tmp_path / "cache", "new")
    assert left in names(tmp_path)  # its writer may be at work still
    long_ago = time.time() - 2 * atomic.ABANDONED_SECONDS
    for path in [tmp_path / left / "text", tmp_path / left]:
        os.utime(path, (long_ago, long_ago))
    write(tmp_path / "cache", "newer")
    assert names(tmp_path) == ["cache"]


def test_what_is_not_replaceable_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(FileExistsError, match="mine"),
        replaced_folder(tmp_path / "mine", replaceable=lambda path: False),
    ):
        pytest.fail("it was to be refused before any work is done")
    assert names(tmp_path / "mine") == ["thesis.txt"]


def test_a_link_stays_a_link(tmp_path):
    write(tmp_path / "large_disk" / "cache", "old")
    (tmp_path / "cache").symlink_to(tmp_path / "large_disk" / "cache")
    write(tmp_path / "cache", "new")
    assert (tmp_path / "cache").is_symlink()
    assert (tmp_path / "large_disk" / "cache" / "text").read_text() == "new"


def test_too_small_a_disk_is_told_before_any_work(tmp_path):
    too_much = shutil.disk_usage(tmp_path).total * 2
    with (
        pytest.raises(OSError, match="MB free") as raised,
        replaced_folder(
            tmp_path / "cache", replaceable=anything, needed_bytes=too_much
        ),
    ):
        pytest.fail("it was to be refused before any work is done")
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_is_told_and_changes_nothing(tmp_path):
    write(tmp_path / "cache", "old")
    with (
        pytest.raises(OSError, match="the disk is full; nothing was changed"),
        replaced_folder(tmp_path / "cache", replaceable=anything),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert names(tmp_path) == ["cache"]
