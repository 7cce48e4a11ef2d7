import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from scoremd.training.step import can_be_shared, share_of
from tests.models import SMALL


def settings(data, folder, batch, **changes):
    values = {
        "name": "test",
        "title": "Test",
        "system": "ALDP",
        "data": str(data / "ALDP-small.h5"),
        "output": str(folder / "model"),
        "network": SMALL,
        "steps": 12,
        "batch": batch,
        "checkpoint_every": 4,
        "dual_weight": 1.0,
        "fokker_planck": {"weight": 0.1, "fraction": 0.125},
    }
    folder.mkdir()
    (folder / "train.yaml").write_text(yaml.safe_dump(values | changes))
    return folder / "train.yaml"


def run(path, processes=1):
    """Train by the command, in processes of their own, without a compiler."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    script = "import sys; from scoremd.cli import main; sys.argv = ['scoremd', 'train', sys.argv[1]]; main()"
    program = path.parent / "program.py"
    program.write_text(script)
    found = subprocess.run(
        [*(command or [sys.executable]), program, path],
        env=os.environ | {"CXX": "/nonexistent", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return found


def losses(folder):
    with (folder / "model" / "metrics.csv").open(newline="") as file:
        return np.array([[float(row[key]) for key in row if key != "learning_rate"] for row in csv.DictReader(file)])


def test_two_processes_are_one_with_twice_the_batch(tmp_path, data):
    one = run(settings(data, tmp_path / "one", 16))
    two = run(settings(data, tmp_path / "two", 8), processes=2)
    assert one.stdout.count("model written to") == two.stdout.count("model written to") == 1
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-4)
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    for name, q in a.items():
        torch.testing.assert_close(b[name], q, rtol=1e-3, atol=1e-5)
    assert not list((tmp_path / "two" / "model").glob("checkpoint*"))
    # a finished run is left alone
    before = (tmp_path / "two" / "model" / "model.safetensors").stat().st_mtime_ns
    run(tmp_path / "two" / "train.yaml", processes=2)
    assert (tmp_path / "two" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_shares_are_every_nth_sample(tmp_path, data):
    from scoremd.training.config import read_config
    from scoremd.training.trainer import Expert, _material

    config = read_config(settings(data, tmp_path / "s", 12, fokker_planck={"weight": 0.1, "fraction": 0.25}))
    description, samples = _material(config)
    batch = Expert(config, description, samples, 0).source.draw()
    parts = [share_of(batch, k, 3) for k in range(3)]
    for k, part in enumerate(parts):
        torch.testing.assert_close(part.denoising.positions, batch.denoising.positions[k::3])
        torch.testing.assert_close(part.consistency.directions, batch.consistency.directions[:, k::3])
    assert [can_be_shared(batch, n) for n in (1, 2, 3, 4)] == [True, False, True, False]


@pytest.mark.parametrize("processes", [2])
def test_samples_that_cannot_be_shared_are_refused(tmp_path, data, processes):
    path = settings(data, tmp_path / "odd", 8, fokker_planck={"weight": 0.1, "fraction": 0.2})
    with pytest.raises(AssertionError, match="to be shared by 2 processes"):
        run(path, processes)
