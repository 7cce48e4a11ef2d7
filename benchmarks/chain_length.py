"""How time and memory grow with the length of a C-alpha chain: training, simulation, sampling, with an untrained network.

    python benchmarks/chain_length.py --beads 5 10 28 64

Each length in a process of its own, on one thread: seconds of a training step, steps/s of one replica and replica-steps/s of 100 in the
engine, samples/s at the default number of calls, seconds of compilation, and the largest memory. Then the exponents of a power law between
the shortest and the longest. Writes `results/chain_length.json`.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
import torch
from results_file import write_results

from scoremd.bound_model import SAMPLING_BATCH
from scoremd.coarse_graining import molecule_of
from scoremd.data import Ensemble
from scoremd.force_field import ForceField
from scoremd.nn.energy import ALL_PAIRS, NetworkConfig
from scoremd.simulation.engine import Replicas, SimulationSettings, langevin_parameters
from scoremd.training.config import TrainingConfig
from scoremd.training.dataset import training_set
from scoremd.training.trainer import Expert, describe
from scoremd.training_template import REACH

SIZES = NetworkConfig(scalars=16, vectors=8, layers=2, radial_basis=12, radial_width=32, torsion_width=128)
BATCH, REPLICAS, FRAMES, STEPS = 128, 100, 400, 20


def helix(n: int, rng: np.random.Generator) -> Ensemble:
    """A C-alpha helix of alanines with noise of 0.02 nm, of no meaning but its size."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for k in range(n):
        topology.add_atom("CA", mdtraj.element.carbon, topology.add_residue("ALA", chain, resSeq=k + 1))
    system = molecule_of("chain", topology, range(n), 300.0)
    turn = np.radians(100) * np.arange(n)
    shape = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(n)], 1)
    x = shape + 0.02 * rng.standard_normal((FRAMES, n, 3))
    return Ensemble("chain", 300.0, system.atoms, (x - x.mean(1, keepdims=True)).astype(np.float32), walker=np.zeros(FRAMES, np.int64))


def timed(function, times: int) -> float:
    """Seconds of a call, after one that is not counted."""
    function()
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


def measure(n: int) -> dict[str, float]:
    """The figures of one length."""
    torch.set_num_threads(1)
    ensemble = helix(n, np.random.default_rng(0))
    system = molecule_of("chain", ensemble.topology(), range(n), 300.0)
    scale = round(1 / float(np.sqrt(ensemble.positions.var(axis=(0, 1)).mean())), 2)
    values = {"name": "chain", "title": "chain", "system": "chain", "data": "none", "output": "none", "use_forces": False, "steps": 100}
    network = SIZES.model_copy(update={"cutoff": REACH * scale if n > ALL_PAIRS else None})
    config = TrainingConfig.model_validate(values | {"length_scale": scale, "network": network, "batch": BATCH})
    description = describe(config, system)
    expert = Expert(config, description, training_set([(system, ensemble)], description, use_forces=False), 0)
    start = time.perf_counter()
    expert.compile()
    found = {"compilation of training, s": time.perf_counter() - start}
    found["training step, s"] = timed(expert.advance, 5)
    force_field = ForceField(description, [expert.averaged_network()])
    bound = force_field.bind(system)
    start = time.perf_counter()
    force = bound.forces()
    positions = torch.from_numpy(ensemble.positions)
    force(positions[:8])
    found["compilation of forces, s"] = time.perf_counter() - start
    for replicas in (1, REPLICAS):
        settings = SimulationSettings(ns=1.0, replicas=replicas)
        engine = Replicas(bound, langevin_parameters(bound, settings), force)
        engine.start(positions[:replicas].clone(), torch.Generator().manual_seed(0))
        found[f"replica-steps/s, {replicas}"] = STEPS * replicas / timed(lambda engine=engine: engine.advance(STEPS), 2)
    start = time.perf_counter()
    bound.sample(SAMPLING_BATCH, itertools.count())  # of a network that has learned nothing: they mean nothing, and need not be finite
    found["samples/s"] = SAMPLING_BATCH / (time.perf_counter() - start)
    found["memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    """Measure each length, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beads", type=int, nargs="+", default=[5, 10, 28, 64])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one is not None:
        print(json.dumps(measure(a.one)))
        return
    rows: dict[int, dict[str, float]] = {}
    for n in a.beads:
        done = subprocess.run([sys.executable, Path(__file__), "--one", str(n)], stdout=subprocess.PIPE, text=True, check=True)
        rows[n] = json.loads(done.stdout.splitlines()[-1])
        print(n, "beads:", *(f"{key} {value:.4g}" for key, value in rows[n].items()), sep="  ", flush=True)
    low, high = min(rows), max(rows)
    exponents = {key: float(np.log(rows[high][key] / rows[low][key]) / np.log(high / low)) for key in rows[low]} if high > low else {}
    print("exponent:", *(f"{key} {value:.2f}" for key, value in exponents.items()), sep="  ")
    print(write_results("chain_length", {"batch": BATCH, "network": SIZES.model_dump(), "beads": rows, "exponents": exponents}))


if __name__ == "__main__":
    main()
