import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest

from ddpm_core.datasets import atomic
from ddpm_core.datasets.atomic import (
    check_room,
    current_folder,
    only_writer,
    written_file,
    written_folder,
)

NAMES = ("text", "more")


def write(path, text):
    with written_folder(path, names=NAMES) as folder:
        (folder / "text").write_text(text)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    write(tmp_path / "deep" / "cache", "old")
    write(tmp_path / "deep" / "cache", "new")
    assert (tmp_path / "deep" / "cache" / "text").read_text() == "new"
    assert names(tmp_path / "deep") == ["cache"]


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "deep" / "a.png"
    for text in ["old", "new"]:
        with written_file(path) as new:
            new.write_text(text)
            assert new.suffix == ".png"
    assert path.read_text() == "new"
    assert names(tmp_path / "deep") == ["a.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_what_was_there_and_nothing_else(tmp_path, error):
    write(tmp_path / "cache", "old")
    (tmp_path / "a.txt").write_text("old")
    with (
        pytest.raises(error),
        written_folder(tmp_path / "cache", names=NAMES) as folder,
        written_file(tmp_path / "a.txt") as file,
    ):
        (folder / "text").write_text("half")
        file.write_text("half")
        raise error
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt", "cache"]


def test_folders_made_for_nothing_are_removed(tmp_path):
    with pytest.raises(ValueError), written_file(tmp_path / "a" / "b" / "c.txt"):
        raise ValueError
    with (
        pytest.raises(ValueError),
        written_folder(tmp_path / "a" / "b" / "c", names=NAMES),
    ):
        raise ValueError
    assert names(tmp_path) == []


def test_a_failed_swap_brings_the_old_folder_back(tmp_path, monkeypatch):
    write(tmp_path / "cache", "old")
    replace = os.replace

    def refuse_new(source, target):
        if ".partial" in str(source):
            raise PermissionError("the new folder cannot be moved")
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", refuse_new)
    with pytest.raises(PermissionError):
        write(tmp_path / "cache", "new")
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert names(tmp_path) == ["cache"]


def test_a_reader_undoes_a_swap_that_was_cut_off(tmp_path):
    write(tmp_path / "cache", "old")
    (tmp_path / "cache").rename(tmp_path / ".cache.previous")
    assert current_folder(tmp_path / "cache") == tmp_path / "cache"
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert names(tmp_path) == ["cache"]


def test_a_reader_leaves_a_swap_alone_whose_writer_is_alive(tmp_path):
    write(tmp_path / "cache", "old")
    with only_writer(tmp_path / "cache"):
        (tmp_path / "cache").rename(tmp_path / ".cache.previous")
        assert current_folder(tmp_path / "cache") == tmp_path / ".cache.previous"
        assert names(tmp_path) == [".cache.lock", ".cache.previous"]


WRITER = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("atomic", sys.argv[4])
atomic = importlib.util.module_from_spec(spec)  # alone: the library takes seconds
spec.loader.exec_module(atomic)
at, how = int(sys.argv[2]), int(sys.argv[3])
moves, replace = iter(range(3)), os.replace

def watched(source, target):
    if next(moves) == at:
        os.kill(os.getpid(), how)
    replace(source, target)

atomic.os.replace = watched
path = Path(sys.argv[1])
if path.suffix:
    with atomic.written_file(path) as new:
        new.write_text("new")
else:
    with atomic.written_folder(path, names=("text",)) as folder:
        (folder / "text").write_text("new")
"""


def start_writer(path, at, how):
    command = [sys.executable, "-c", WRITER, str(path), str(at), str(int(how))]
    command.append(atomic.__file__)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("at", [0, 1])
def test_a_writer_killed_at_a_move_leaves_the_old_folder(tmp_path, at):
    write(tmp_path / "cache", "old")
    start_writer(tmp_path / "cache", at, signal.SIGKILL).communicate()
    assert ".cache.partial" in names(tmp_path)
    assert (current_folder(tmp_path / "cache") / "text").read_text() == "old"
    write(tmp_path / "cache", "newer")
    assert (tmp_path / "cache" / "text").read_text() == "newer"
    assert names(tmp_path) == ["cache"]


def test_a_writer_killed_before_its_move_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    start_writer(tmp_path / "a.txt", 0, signal.SIGKILL).communicate()
    assert (tmp_path / "a.txt").read_text() == "old"
    with written_file(tmp_path / "a.txt") as new:
        new.write_text("newer")
    assert names(tmp_path) == ["a.txt"]


def test_readers_and_writers_meet_a_paused_writer(tmp_path):
    write(tmp_path / "cache", "old")
    paused = start_writer(tmp_path / "cache", 1, signal.SIGSTOP)
    os.waitpid(paused.pid, os.WUNTRACED)
    assert (current_folder(tmp_path / "cache") / "text").read_text() == "old"
    with pytest.raises(BlockingIOError, match="another process is writing .*cache"):
        write(tmp_path / "cache", "another's")
    os.kill(paused.pid, signal.SIGCONT)
    paused.communicate()
    assert paused.returncode == 0
    assert (tmp_path / "cache" / "text").read_text() == "new"
    assert names(tmp_path) == ["cache"]


def test_a_file_has_one_writer(tmp_path):
    with written_file(tmp_path / "a.txt") as new:
        new.write_text("first")
        with pytest.raises(BlockingIOError), written_file(tmp_path / "a.txt"):
            pytest.fail("it is to be refused before any work is done")
    assert (tmp_path / "a.txt").read_text() == "first"


@pytest.mark.parametrize("content", ["thesis.txt", "more", "text/.git"])
def test_a_folder_that_is_not_ours_stays(tmp_path, content):
    path = tmp_path / "mine" / content.split("/")[-1]
    path.parent.mkdir()
    path.write_text("years of work")
    if "/" in content:
        (tmp_path / "mine" / "text").touch()
    with (
        pytest.raises(FileExistsError, match=rf"mine' holds '{path.name}'"),
        written_folder(tmp_path / "mine", names=NAMES),
    ):
        pytest.fail("it is to be refused before any work is done")
    assert path.read_text() == "years of work"


def test_the_content_decides_too(tmp_path):
    write(tmp_path / "cache", "somebody else's")
    with (
        pytest.raises(FileExistsError, match="holds 'text'"),
        written_folder(tmp_path / "cache", names=NAMES, is_ours=lambda folder: False),
    ):
        pytest.fail("it is to be refused before any work is done")


def test_what_is_put_into_the_folder_meanwhile_stays(tmp_path):
    write(tmp_path / "cache", "old")
    with (
        pytest.raises(FileExistsError, match=r"notes\.txt"),
        written_folder(tmp_path / "cache", names=NAMES) as folder,
    ):
        (folder / "text").write_text("new")
        (tmp_path / "cache" / "notes.txt").write_text("mine")
    assert (tmp_path / "cache" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "cache" / "text").read_text() == "old"


def test_what_a_file_manager_leaves_is_no_obstacle(tmp_path):
    write(tmp_path / "cache", "old")
    (tmp_path / "cache" / ".DS_Store").touch()
    write(tmp_path / "cache", "new")
    assert names(tmp_path / "cache") == ["text"]


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path / "folder")
    refused = [
        (written_file(tmp_path / "folder"), IsADirectoryError),
        (written_file(tmp_path / "pipe"), FileExistsError),
        (written_file("/dev/null"), FileExistsError),
        (written_file(tmp_path / "file" / "a.txt"), OSError),
        (written_folder(tmp_path / "file", names=NAMES), FileExistsError),
        (written_folder(tmp_path / "pipe", names=NAMES), FileExistsError),
        (written_folder(".", names=NAMES), FileExistsError),
        (written_folder(tmp_path, names=NAMES), FileExistsError),
        (written_folder("/", names=NAMES), FileExistsError),
    ]
    for context, error in refused:
        with pytest.raises(error), context:
            pytest.fail("it is to be refused before any work is done")
    assert names(tmp_path) == ["file", "folder", "pipe"]


def test_links_stay_links(tmp_path):
    write(tmp_path / "large_disk" / "cache", "old")
    (tmp_path / "cache").symlink_to(tmp_path / "large_disk" / "cache")
    write(tmp_path / "cache", "new")
    assert (tmp_path / "cache").is_symlink()
    assert (tmp_path / "large_disk" / "cache" / "text").read_text() == "new"
    (tmp_path / "a.txt").symlink_to(tmp_path / "large_disk" / "b.txt")
    with written_file(tmp_path / "a.txt") as file:
        file.write_text("new")
    assert (tmp_path / "large_disk" / "b.txt").read_text() == "new"


def test_too_small_a_disk_is_named(tmp_path):
    with pytest.raises(OSError, match=r"MB free, and .* MB are needed") as raised:
        check_room(tmp_path, shutil.disk_usage(tmp_path).total * 2)
    assert raised.value.errno == errno.ENOSPC


def test_a_disk_that_fills_up_is_named_and_changes_nothing(tmp_path):
    write(tmp_path / "cache", "old")
    with (
        pytest.raises(OSError, match="the disk is full; nothing was changed"),
        written_folder(tmp_path / "cache", names=NAMES),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "cache" / "text").read_text() == "old"
    assert names(tmp_path) == ["cache"]
