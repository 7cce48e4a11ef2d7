"""Files are there whole or not at all."""

import os
import stat
import subprocess
import sys

import pytest

from scoremd import files
from scoremd.errors import ScoreMDError
from scoremd.files import exclusive, exclusive_output, new_folder, replacing, write_text


def test_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half, then \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replaces_and_is_as_public_as_the_umask_says(tmp_path):
    path = tmp_path / "a.txt"
    old = os.umask(0o027)
    try:
        assert write_text(path, "µ") == path
    finally:
        os.umask(old)
    assert path.read_text(encoding="utf-8") == "µ"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(("name", "message"), [("folder", "is a folder"), ("missing/a.txt", "there is no folder")])
def test_places_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ScoreMDError, match=message):
        write_text(tmp_path / name, "text")


def test_full_disk_is_told_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ScoreMDError, match="No space left"), replacing(path):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"


def test_folder_of_another_process_is_refused(tmp_path):
    holder = "import sys, scoremd.files as f\nwith f.exclusive(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ScoreMDError, match="another process is writing there"), exclusive(tmp_path):
            pass
        process.kill()
    with exclusive(tmp_path):
        pass


def test_output_of_another_process_is_refused_and_leaves_no_folder(tmp_path):
    path = tmp_path / "a.h5"
    holder = "import sys, scoremd.files as f\nwith f.exclusive_output(sys.argv[1]):\n    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ScoreMDError, match=r"a.h5.part: another process is writing there"), exclusive_output(path):
            pass
        process.kill()
    with exclusive_output(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_output_whose_holder_ends_meanwhile_is_held_anew(tmp_path, monkeypatch):
    path, held, seen = tmp_path / "a.h5", files._held, []

    def after_the_other_has_ended(folder):
        handle = held(folder)
        if len(seen) < 2:
            folder.rmdir()
        seen.append(handle)
        return handle

    monkeypatch.setattr(files, "_held", after_the_other_has_ended)
    with exclusive_output(path):
        assert path.with_name("a.h5.part").is_dir()
    assert len(seen) == 3


def test_new_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(ScoreMDError, match="a: cannot be written"), new_folder(tmp_path / "a") as folder:  # noqa: PT012
        (folder / "half").write_text("half")
        (folder / "missing").read_text()
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("whole")
        assert not (tmp_path / "a").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a/x").read_text() == "whole"
    (tmp_path / "b").mkdir()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode  # as public as the umask says


@pytest.mark.parametrize(("name", "message"), [("there", "exists already"), ("missing/a", "there is no folder")])
def test_places_of_a_new_folder_that_are_refused(tmp_path, name, message):
    (tmp_path / "there").mkdir()
    with pytest.raises(ScoreMDError, match=message), new_folder(tmp_path / name):
        pass
