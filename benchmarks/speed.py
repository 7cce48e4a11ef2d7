"""How fast training steps, samples and simulations are, on one and on two threads; ScoreMD's own code beside it.

    python benchmarks/speed.py

Times are the best of three rounds in one run; each number of threads runs in a process of its own.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openmm
import torch
from openmm import unit
from results_file import write_results
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from scoremd.bound_model import SAMPLING_CALLS
from scoremd.data import Ensemble
from scoremd.force_field import ForceField
from scoremd.parts import LARGEST_PART
from scoremd.simulation.engine import Replicas, SimulationSettings, langevin_parameters
from scoremd.systems import ToySystem, find_system, load_system
from scoremd.training.config import TrainingConfig
from scoremd.training.dataset import training_set
from scoremd.training.trainer import Expert, describe

#: ScoreMD's own code on two similar cores, untrained weights (shared/DESIGN.md, "Figures to beat"), of molecules of the same size: for
#: ten beads their dipeptides where they were timed, else chignolin. Their Fokker–Planck term is on the whole batch, estimated with random
#: directions; ours takes the exact divergence.
THEIRS = {
    "ALDP": {
        "training step, batch 128 [ms]": 262.0,
        "training step with Fokker-Planck, 128 points, batch 128 [ms]": 1998.0,
        "samples [1/s]": 2.5,
        "engine, 1 replica [replica-steps/s]": 1312.0,
        "engine, 100 replicas [replica-steps/s]": 2625.0,
    },
    "KS": {
        "training step, batch 128 [ms]": 1968.0,
        "training step with Fokker-Planck, 128 points, batch 128 [ms]": 15284.0,
        "samples [1/s]": 0.41,
        "engine, 1 replica [replica-steps/s]": 224.0,
        "engine, 100 replicas [replica-steps/s]": 390.0,
    },
}


def seconds(function: Callable[[], Any], at_least: float = 2.0) -> float:
    """Best time of a call among three rounds of `at_least` seconds."""
    function()
    best = float("inf")
    for _ in range(3):
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < at_least:
            function()
            calls += 1
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def matrix_rate() -> float:
    """Single-precision matrix products of 1024 x 1024, GFLOP/s."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / seconds(lambda: a @ a) / 1e9


def training(force_field: ForceField, name: str, **terms: Any) -> float:
    """ms of a training step of the least noisy network; `terms` are `dual_weight` and the section `fokker_planck`, if they are to be."""
    system = load_system(name)
    reference = system.reference_ensemble()
    assert reference is not None
    positions = reference.positions[:: len(reference.positions) // 2000]
    labelled = Ensemble(reference.name, reference.temperature, reference.atoms, positions, 800 * torch.randn(positions.shape).numpy())
    described = find_system(force_field.description.systems[0])
    assert not isinstance(described, ToySystem)
    config = TrainingConfig.model_validate(
        {
            "name": "speed", "title": "speed", "system": described.name, "data": "", "output": "", "steps": 10**6, "batch": 128,
            "threads": torch.get_num_threads(),
            "network": force_field.description.network.model_dump(), **terms,
        }
    )  # fmt: skip
    description = describe(config, described)
    expert = Expert(config, description, training_set([(system, labelled)], description, use_forces=True), 0)
    expert.compile()
    return 1e3 * seconds(expert.advance)


def frames_of(name: str, n: int) -> torch.Tensor:
    """n reference frames, nm."""
    reference = load_system(name).reference_ensemble()
    assert reference is not None
    return torch.from_numpy(reference.positions[:: len(reference.positions) // n][:n].copy())


def engine(force_field: ForceField, name: str, replicas: int) -> float:
    """Replica-steps per second of the batched engine."""
    model = force_field.bind(name)
    parameters = langevin_parameters(model, SimulationSettings(ns=1.0, replicas=replicas))
    running = Replicas(model, parameters, model.forces())
    running.start(frames_of(name, replicas), torch.Generator().manual_seed(0))
    return 100 * replicas / seconds(lambda: running.advance(100))


def parts_of_a_step(force_field: ForceField, name: str) -> dict[str, float]:
    """Where a thread of the engine spends its time: force call, random numbers; and the force call's share of the matrix-product rate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = force_field.bind(name)
    force, x = model.forces(), frames_of(name, LARGEST_PART)
    call = seconds(lambda: force(x))
    # the counter does not go through gradients; a traced graph has them written out
    graph = make_fx(lambda q: model.energy_and_score(q, torch.ones(1)))(x)
    with FlopCounterMode(display=False) as counter:
        graph(x)
    figures = {
        "force call on one thread [us per replica]": 1e6 * call / LARGEST_PART,
        "random numbers [us per replica]": 1e6 * seconds(lambda: torch.randn(x.shape)) / LARGEST_PART,
        "matrix products of a force call [kflop per replica]": counter.get_total_flops() / LARGEST_PART / 1e3,
        "their share of the matrix-product rate of one thread [%]": 100 * counter.get_total_flops() / call / matrix_rate() / 1e9,
    }
    torch.set_num_threads(threads)
    return figures


def through_openmm(force_field: ForceField, name: str) -> tuple[float, float]:
    """Steps per second of OpenMM's LangevinMiddleIntegrator, and of the bare force call."""
    system, _ = force_field.create_openmm(name)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    x = frames_of(name, 1)
    context.setPositions(x[0].double().numpy())
    context.setVelocitiesToTemperature(300 * unit.kelvin, 0)
    force = force_field.bind(name).forces()
    return 100 / seconds(lambda: integrator.step(100)), 1 / seconds(lambda: force(x))


def measure(model: str, name: str) -> dict[str, float]:
    """All figures of a molecule, with the number of threads that torch has."""
    force_field = ForceField.load(model)
    bound, seeds = force_field.bind(name), itertools.count()
    stepped, bare = through_openmm(force_field, name)
    of_aldp = ForceField.load("alanine-dipeptide").description.trained["configuration"]["fokker_planck"]
    points = round(128 * of_aldp["fraction"])
    return {
        "training step, batch 128 [ms]": training(force_field, name),
        "training step with dual score matching, batch 128 [ms]": training(force_field, name, dual_weight=1.0),
        "training step with Fokker-Planck, 128 points, batch 128 [ms]": training(
            force_field, name, fokker_planck=of_aldp | {"fraction": 1.0}
        ),
        f"training step with Fokker-Planck, {points} points, batch 128 [ms]": training(force_field, name, fokker_planck=of_aldp),
        "samples [1/s]": 256 / seconds(lambda: bound.sample(256, seeds)),
        **{f"engine, {r} replica{'s' * (r > 1)} [replica-steps/s]": engine(force_field, name, r) for r in (1, 100, 1000)},
        "OpenMM, 1 replica [steps/s]": stepped,
        "bare force call, 1 replica [1/s]": bare,
        **parts_of_a_step(force_field, name),
        "matrix product [GFLOP/s]": matrix_rate(),
    }


def main() -> None:
    """Measure in processes of one and of two threads and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(int(arguments.one[2]))
        print(json.dumps(measure(*arguments.one[:2])))
        return
    results: dict[str, Any] = {}
    for model, name in (("alanine-dipeptide", "ALDP"), ("dipeptides", "KS")):
        columns = results[name] = {}
        for threads in (1, 2):
            command = [sys.executable, str(Path(__file__).resolve()), "--one", model, name, str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
            columns[threads] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}; {SAMPLING_CALLS} network calls a sample")
        print(f"{'':60} {'1 thread':>10} {'2 threads':>10} {'ScoreMD':>10} {'ratio':>7}")
        for figure, one in columns[1].items():
            two, theirs = columns[2][figure], THEIRS[name].get(figure)
            best = min(one, two) if "[ms]" in figure else max(one, two)
            ratio = "" if theirs is None else f"{theirs / best if '[ms]' in figure else best / theirs:7.1f}"
            print(f"{figure:60} {one:10.1f} {two:10.1f} {theirs or '':>10} {ratio}", flush=True)
    print(write_results("speed", {"molecules": results, "ScoreMD": THEIRS}))


if __name__ == "__main__":
    main()
