"""Files are there whole or not at all."""

import os
import stat
import subprocess
import sys

import pytest

from scoremd.errors import ScoreMDError
from scoremd.files import exclusive, replacing, write_text


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
