"""kill -9 at random moments: what is there after the next run is what an undisturbed run would have left, and nothing else.

Imports take most of the time of a command this small. So most runs are forks of a process that has imported everything, and call the
function that the command `scoremd` calls; of each command one run is killed that was started from nothing, imports included. Nothing is
compiled, and a sample costs few calls of the network. Files are the same byte for byte, but for two kinds: HDF5 files hold the second in
which each dataset was made, so that two undisturbed runs differ, too, and are compared dataset by dataset, attributes included; reports
hold a date, which is taken out.
"""

import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.models import SMALL, alanine_dipeptide

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data" / "ALDP-small.h5"
SHORT = "from scoremd import bound_model\nbound_model.SAMPLING_CALLS, bound_model.SAMPLING_BATCH = 10, 64\nfrom scoremd.cli import main\n"
#: Says that it is ready, then, for each line (folder, arguments), the number of the process that runs them, and its exit code.
WARM = (
    SHORT
    + """
import json, os, sys
import matplotlib.pyplot
from scoremd import emulation
from scoremd.training import config, trainer
print("ready", flush=True)
for line in sys.stdin:
    folder, arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(folder)
        log = os.open("../log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.argv = ["scoremd", *arguments]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
)
SIMULATION = ("--ns", "5e-5", "--replicas", "8", "--time-step", "0.5", "--every", "0.005")
COMMANDS = {
    "sample": ("sample", "ALDP", "-n", "300", "-o", "a.h5"),
    "simulate": ("simulate", "ALDP", *SIMULATION, "-o", "b.h5"),
    "train": ("train", "../train.yaml"),
    "emulate": ("emulate", "ALDP", "-n", "60", *SIMULATION, "-o", "c"),
}
#: Of each command, and how often at most before a run may end; with the one that starts from nothing 52 in all.
KILLS, IN_A_ROW = 13, 4


@pytest.fixture(scope="module")
def environment():
    """Nothing is compiled, in one thread."""
    root = Path(__file__).parents[2]
    return os.environ | {"CXX": "no-such-compiler", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}


@pytest.fixture(scope="module")
def warm(environment):
    with subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


class Place:
    """A folder for the outputs of one command, and what it needs beside it."""

    def __init__(self, path, command):
        self.folder, self.arguments = path / "out", COMMANDS[command]
        self.folder.mkdir(parents=True)
        alanine_dipeptide().save(path / "model")
        settings = {"name": "test", "title": "Test", "system": "ALDP", "data": str(DATA), "output": "out/run", "network": SMALL}
        settings |= {"steps": 24, "batch": 16, "checkpoint_every": 2, "fokker_planck": {"weight": 0.1}}
        (path / "train.yaml").write_text(json.dumps(settings))
        if command != "train":
            self.arguments += ("--model", "../model", "--threads", "1")

    def run(self, warm, kill_after=None, *, in_a_write=False):
        """Start it in a fork; the exit code, -9 if it was killed, and how long it took."""
        warm.stdin.write(json.dumps([str(self.folder), self.arguments]) + "\n")
        warm.stdin.flush()
        child, start = int(warm.stdout.readline()), time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            if in_a_write:
                self.wait_for_a_change()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = int(warm.stdout.readline())
        return code, time.monotonic() - start

    def wait_for_a_change(self):
        """Until a file comes or goes, or for three seconds."""
        end, before = time.monotonic() + 3, self.names()
        while self.names() == before and time.monotonic() < end:
            time.sleep(2e-4)

    def names(self):
        """Files and folders, below as they are found: some are gone while this looks."""
        return {os.path.join(folder, name) for folder, *there in os.walk(self.folder) for name in sum(there, [])}  # noqa: PTH118, RUF017

    def run_from_nothing(self, environment, kill_after=None):
        """Start the command as the shell does; whether it was killed."""
        script = [sys.executable, "-c", SHORT + "main()", *self.arguments]
        with subprocess.Popen(script, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode

    def log(self):
        """What its runs said."""
        return (self.folder.parent / "log").read_text()

    def contents(self):
        """What is there, by path: bytes, but for the exceptions that the module's docstring names."""
        files = sorted(p for p in self.folder.rglob("*") if not p.is_dir())
        return {str(p.relative_to(self.folder)): content(p) for p in files}


def content(path):
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            found = {"/": dict(file.attrs)}
            file.visititems(lambda name, q: found.update({name: (dict(q.attrs), q.dtype.str, q.shape, np.asarray(q).tobytes())}))
        return repr(found)
    if path.suffix == ".html":
        text, dates = re.subn(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", b"DATE", path.read_bytes())
        assert dates >= 1
        return text
    return path.read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_after_kills_at_random_moments_all_is_as_if_there_were_none(command, tmp_path, warm, environment):
    whole = Place(tmp_path / "whole", command)
    code, duration = whole.run(warm)
    assert code == 0, whole.log()
    expected = whole.contents()
    rng, killed, rounds = random.Random(command), 0, itertools.count()
    while killed < KILLS:
        place = Place(tmp_path / f"round {next(rounds)}", command)
        for k in range(IN_A_ROW):
            # within writes files come and go: it is there that a kill is most likely to do harm
            code, _ = place.run(warm, rng.uniform(0, duration), in_a_write=k % 2 == 1)
            if code == 0:
                break
            assert code == -signal.SIGKILL, place.log()
            killed += 1
        code, _ = place.run(warm)
        assert code == 0, place.log()
        found = place.contents()
        assert found.keys() == expected.keys()
        assert not [name for name, q in found.items() if q != expected[name]]
    place = Place(tmp_path / "from nothing", command)
    assert place.run_from_nothing(environment, rng.uniform(1, 6 + duration)) in (0, -signal.SIGKILL)
    assert place.run_from_nothing(environment) == 0
    assert place.contents() == expected
