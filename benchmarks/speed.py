"""How fast training steps, samples and simulations are, as written and compiled, on one and on two threads; ScoreMD's own code beside it.

    python benchmarks/speed.py

Times are the best of three rounds in one run; each column is a process of its own, that of what is not compiled one without a compiler.
Shares are those of the rate that as many threads reach in large matrix products. They count the products of the function as it is written,
less those that all replicas of a molecule share.
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
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from results_file import write_results
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from scoremd.bound_model import SAMPLING_CALLS, BoundModel, program_of
from scoremd.data import Ensemble
from scoremd.force_field import ForceField
from scoremd.nn.radial import RadialFeatures
from scoremd.parts import LARGEST_PART
from scoremd.simulation.engine import Replicas, SimulationSettings, langevin_parameters
from scoremd.systems import ToySystem, find_system, load_system
from scoremd.training.config import TrainingConfig
from scoremd.training.dataset import training_set
from scoremd.training.trainer import Expert, describe

#: ScoreMD's own code on two similar cores, untrained weights, measured once by scripts that are not in this repository, of molecules of
#: the same size: for ten beads their dipeptides where they were timed, else chignolin. Their Fokker–Planck term is on the whole batch,
#: estimated with random directions; ours takes the exact divergence.
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
    """Single-precision matrix products of 1024 x 1024, FLOP/s."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / seconds(lambda: a @ a)


class Figure(NamedTuple):
    """A time or a rate, and the share of the matrix-product rate that its products reach, if they were counted, in percent."""

    value: float
    share: float | None = None


def in_training(force_field: ForceField, name: str, **terms: Any) -> Expert:
    """The least noisy network; `terms` are `dual_weight` and the section `fokker_planck`, if they are to be."""
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
    return Expert(config, description, training_set([(system, labelled)], description, use_forces=True), 0)


def training(expert: Expert, rate: float) -> Figure:
    """ms of a training step."""
    flop = products(expert.step_function, expert.parameters, expert.source.draw())
    expert.compile()
    time = seconds(expert.advance)
    return Figure(1e3 * time, share(flop / time, rate))


def dearer(terms: dict[str, Expert], plain: Expert) -> dict[str, Figure]:
    """How many times as long as a step without it one with a term takes, measured in turn, as `training` has left them: compiled."""
    times = in_turn(plain.advance, *(expert.advance for expert in terms.values()))
    ratios = np.median(times[:, 1:] / times[:, :1], 0)
    return {f"{name}: times a step without": Figure(ratio) for name, ratio in zip(terms, ratios, strict=True)}


def products(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations in the matrix products of a call."""
    graph = make_fx(function)(*arguments)  # the counter does not go through gradients; a traced graph has them written out
    with FlopCounterMode(display=False) as counter:
        graph(*arguments)
    return float(counter.get_total_flops())


def share(flop_per_second: float, rate: float) -> float:
    """Percent of the matrix-product rate."""
    return 100 * flop_per_second / rate


def frames_of(name: str, n: int) -> torch.Tensor:
    """n reference frames, nm."""
    reference = load_system(name).reference_ensemble()
    assert reference is not None
    return torch.from_numpy(reference.positions[:: len(reference.positions) // n][:n].copy())


def engine(model: BoundModel, replicas: int, flop: float, rate: float) -> Figure:
    """Replica-steps per second of the batched engine; `flop` for each."""
    parameters = langevin_parameters(model, SimulationSettings(ns=1.0, replicas=replicas))
    running = Replicas(model, parameters, model.forces())
    running.start(frames_of(model.system.name, replicas), torch.Generator().manual_seed(0))
    steps = 100 if model.compiled else 1
    found = steps * replicas / seconds(lambda: running.advance(steps))
    return Figure(found, share(found * flop, rate))


def through_openmm(force_field: ForceField, name: str, flop: float, rate: float) -> dict[str, Figure]:
    """Steps of OpenMM's LangevinMiddleIntegrator, and the force alone, of a batch of one and as OpenMM asks for it."""
    system, _ = force_field.create_openmm(name)
    temperature = force_field.description.temperature * unit.kelvin
    integrator = openmm.LangevinMiddleIntegrator(temperature, 1 / unit.picosecond, 2 * unit.femtosecond)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    x = frames_of(name, 1)
    positions = x[0].double().numpy()
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature, 0)
    model = force_field.bind(name)
    batched, single = model.forces(), model.force_of_one()
    times = in_turn(lambda: integrator.step(1), lambda: batched(x), lambda: single(positions))
    step, bare, least = np.median(times, 0)
    over_bare, over_least = 100 * (np.median(times[:, :1] / times[:, 1:], 0) - 1)
    return {
        "OpenMM, 1 replica [steps/s]": Figure(1 / step, share(flop / step, rate)),
        "force call, batch of one [1/s]": Figure(1 / bare, share(flop / bare, rate)),
        "force call of one, as OpenMM has it [1/s]": Figure(1 / least, share(flop / least, rate)),
        "OpenMM's step over the batch of one [%]": Figure(over_bare),
        "OpenMM's step over the force call of one [%]": Figure(over_least),
    }


def in_turn(*functions: Callable[[], Any], rounds: int = 60, at_least: float = 0.03) -> NDArray[np.float64]:
    """Seconds of a call of each, measured one after the other in each round, (round, function)."""
    calls = [max(1, round(at_least / seconds(f, at_least))) for f in functions]
    times = np.empty((rounds, len(functions)))
    for row in times:
        for k, (function, n) in enumerate(zip(functions, calls, strict=True)):
            start = time.perf_counter()
            for _ in range(n):
                function()
            row[k] = (time.perf_counter() - start) / n
    return times


_FIRST_STEP = """
import time
start = time.perf_counter()
import openmm, scoremd
from openmm import unit
force_field = scoremd.ForceField.load({model!r})
system, _ = force_field.create_openmm({name!r}, temperature=None)
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
context.setPositions(force_field.bind({name!r}).system.reference_ensemble().positions[0].astype(float))
ready = time.perf_counter()
context.getIntegrator().step(1)
print(time.perf_counter() - ready, time.perf_counter() - start)
"""


def first_step(model: str, name: str) -> dict[str, Figure]:
    """Seconds of OpenMM's first step in a new process, where all is compiled already."""
    command = [sys.executable, "-c", _FIRST_STEP.format(model=model, name=name)]
    times = [[float(t) for t in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()] for _ in range(3)]
    step, all_of_it = min(times)
    return {"OpenMM's first step, compiled before [s]": Figure(step), "the same with imports and all [s]": Figure(all_of_it)}


def parts_of_a_step(model: BoundModel, flop: float) -> dict[str, Figure]:
    """Where a thread of the engine spends its time; what tables of radial filters could save at most."""
    x = frames_of(model.system.name, LARGEST_PART)
    force = model.forces()
    call = seconds(lambda: force(x))
    random = seconds(lambda: torch.randn(x.shape))
    with mock.patch.object(RadialFeatures, "forward", lambda _self, z, _distance, context: z[..., None] * context):
        program_of.cache_clear()
        without = BoundModel(model.description, model.experts, model.system).forces()
        cheaper = seconds(lambda: without(x))
    program_of.cache_clear()
    return {
        "force call [us per replica]": Figure(1e6 * call / LARGEST_PART),
        "force call if radial filters were one product [us per replica]": Figure(1e6 * cheaper / LARGEST_PART),
        "random numbers [us per replica]": Figure(1e6 * random / LARGEST_PART),
        "matrix products of a force call [kflop per replica]": Figure(flop / 1e3),
    }


def measure(model: str, name: str) -> dict[str, Figure]:
    """All figures of a molecule, with the number of threads that torch has."""
    force_field, rate = ForceField.load(model), matrix_rate()
    bound, seeds = force_field.bind(name), itertools.count()
    few, more = (products(lambda q: bound.energy_and_score(q, torch.ones(1)), bound.scaled(frames_of(name, n))) for n in (1, 17))
    flop = (more - few) / 16  # without what all replicas share
    consistency = ForceField.load("alanine-dipeptide").description.trained["configuration"]["fokker_planck"]
    sampled = 256 / seconds(lambda: bound.sample(256, seeds))
    plain = in_training(force_field, name)
    terms = {"dual score matching": in_training(force_field, name, dual_weight=1.0)} | {
        f"Fokker-Planck, {points} points": in_training(force_field, name, fokker_planck=consistency | {"fraction": points / 128})
        for points in (2, 10, 128)
    }
    return {
        "matrix product [GFLOP/s]": Figure(rate / 1e9),
        "training step, batch 128 [ms]": training(plain, rate),
        **{f"training step with {term}, batch 128 [ms]": training(expert, rate) for term, expert in terms.items()},
        **dearer({term: expert for term, expert in terms.items() if "128" not in term}, plain),
        "samples [1/s]": Figure(sampled, share(sampled * SAMPLING_CALLS * flop, rate)),
        **{f"engine, {r} replica{'s' * (r > 1)} [replica-steps/s]": engine(bound, r, flop, rate) for r in (1, 100, 1000)},
        **through_openmm(force_field, name, flop, rate),
        **(first_step(model, name) if bound.compiled else {}),
        **(parts_of_a_step(bound, flop) if bound.compiled and torch.get_num_threads() == 1 else {}),
    }


def column(model: str, name: str, threads: int, *, compiled: bool) -> dict[str, Figure]:
    """The figures of a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)} | ({} if compiled else {"CXX": "none"})
    command = [sys.executable, str(Path(__file__).resolve()), "--one", model, name, str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return {figure: Figure(*values) for figure, values in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Measure, each column in a process of its own, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(int(arguments.one[2]))
        print(json.dumps(measure(*arguments.one[:2])))
        return
    results: dict[str, Any] = {}
    for model, name in (("alanine-dipeptide", "ALDP"), ("dipeptides", "KS")):
        one, two = (column(model, name, threads, compiled=True) for threads in (1, 2))
        written = column(model, name, 2, compiled=False)
        results[name] = {"1 thread": one, "2 threads": two, "2 threads, not compiled": written}
        print(f"{name}; {SAMPLING_CALLS} network calls a sample; in brackets % of the matrix-product rate")
        print(f"{'':64} {'not compiled':>16} {'1 thread':>16} {'2 threads':>16} {'ScoreMD':>9} {'ratio':>6}")
        for figure in one:
            theirs, is_time = THEIRS[name].get(figure), "[ms]" in figure
            cells = [_cell(q.get(figure)) for q in (written, one, two)]
            ratio = ""
            if theirs is not None:
                ours = (min if is_time else max)(q[figure].value for q in (one, two))
                ratio = f"{theirs / ours if is_time else ours / theirs:.1f}"
            print(f"{figure:64} {cells[0]:>16} {cells[1]:>16} {cells[2]:>16} {theirs or '':>9} {ratio:>6}", flush=True)
    print(write_results("speed", {"molecules": results, "ScoreMD": THEIRS}))


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{figure.value:.4g}" + ("" if figure.share is None else f" ({figure.share:.3g})")


if __name__ == "__main__":
    main()
