"""What the README tells people to type does what it says."""

import re
import shlex
import sys
from pathlib import Path

import mdtraj
import pytest

from scoremd.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def test_files_that_it_names_are_there():
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`(?:python )?([\w./-]+\.(?:py|yaml|ipynb|md))", README)
    assert len(named) > 5
    assert not [name for name in named if not (ROOT / name).exists() and name != "CONFIG.yaml"]


@pytest.mark.slow
@pytest.mark.compiled
def test_commands_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.startswith(".venv/bin/scoremd")]
    assert len(lines) >= 4
    for line in lines:
        monkeypatch.setattr(sys, "argv", ["scoremd", *shlex.split(line, comments=True)[1:]])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert not exit_.value.code, capsys.readouterr().err
    assert mdtraj.load("run.h5").n_atoms == 5
    assert Path("comparison/report.html").exists()


@pytest.mark.slow
@pytest.mark.compiled
def test_python_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = [text for kind, text in BLOCKS if kind == "python"]
    assert len(blocks) >= 2
    for text in blocks:
        exec(compile(text, "README.md", "exec"), names)
    assert names["run"].lost == ()
    assert names["samples"].n_frames == 1000
