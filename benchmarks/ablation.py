"""What each part of the training target does for alanine dipeptide: the same steps, several seeds.

    python benchmarks/ablation.py --data ALDP.h5 --seeds 0 1 2

For each variant and seed: excess JS of samples and of a simulation against the reference, population of phi > 0 in the simulation, and
the root mean square of the Fokker–Planck residual over the noise levels, also about its mean at each level: variants without the term do
not learn the normalisation, which no force feels. A simulation that lost replicas is compared by the frames from before, at as many of the
reference. One network does all, without a mixture over time. Finished entries are kept in the working folder, interrupted trainings and
simulations go on; seeds can run in processes of their own and are put together by a last call with all of them.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from residual import residual_rms
from results_file import write_results

from scoremd.emulation import emulate
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import load_system
from scoremd.training.config import TrainingConfig
from scoremd.training.trainer import train

#: Name -> forces in the target, frozen time, weight of the Fokker–Planck term.
VARIANTS = {
    "denoising": (False, None, 0.0),
    "denoising + FP": (False, None, 0.1),
    "mixed target": (True, None, 0.0),
    "mixed target + frozen time": (True, 3.0, 0.0),
    "mixed target + frozen time + FP": (True, 3.0, 0.1),
}


def configuration(name: str, seed: int, a: argparse.Namespace) -> dict[str, Any]:
    """Training configuration of a variant."""
    forces, frozen, weight = VARIANTS[name]
    return {
        "name": "ablation",
        "title": name,
        "system": "ALDP",
        "use_forces": forces,
        "network": {"scalars": 16, "vectors": 8, "radial_width": 32, "torsion_width": 128, "frozen_above": frozen},
        # where time is frozen, soft modes cannot drift apart any more; where it is visible, consistency has to reach the simulation
        "fokker_planck": {"weight": weight, "log_snr": [0.0, 3.5 if frozen else 6.9]},
        "steps": a.steps,
        "learning_rate": 3e-3,
        "seed": seed,
    }


def entry(name: str, seed: int, a: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one variant with one seed, unless that was done before."""
    content = configuration(name, seed, a)
    data = hashlib.sha256(a.data.read_bytes()).hexdigest()
    key = hashlib.sha256(json.dumps([content, data]).encode()).hexdigest()[:12]
    folder = a.work / f"{name.replace(' ', '-')}-{seed}-{key}"
    if not (folder / "model.safetensors").exists():
        train(TrainingConfig.model_validate(content | {"data": a.data.resolve(), "output": folder}))
    force_field = ForceField.load(folder)
    emulation = folder / f"{force_field.hash}-{a.samples}-{a.replicas}-{a.ns}"
    done = emulation / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    settings = SimulationSettings(a.ns, a.replicas, seed)
    result = emulate(force_field, load_system("ALDP"), emulation, samples=a.samples, settings=settings, command="ablation")
    found = result.comparison.to_dict()
    model = force_field.bind("ALDP")
    reference = model.system.reference_ensemble()
    assert reference is not None
    rms, about_mean = residual_rms(model, reference.positions, 256, seed)
    row = {
        "residual rms": rms,
        "residual rms about mean": about_mean,
        "phi > 0": found["ensembles"]["simulation"]["populations"]["phi > 0"]["value"],
        "lost": found["lost_replicas"],
        **{title: pair["js_nats"] for title, pair in found["comparisons"].items()},
    }
    done.write_text(json.dumps(row))
    return row


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="ensemble with forces, in our HDF5 format")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--replicas", type=int, default=128)
    parser.add_argument("--ns", type=float, default=0.25)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "scoremd-ablation")
    a = parser.parse_args()
    torch.set_num_threads(1)
    # seeds outermost: whoever stops early has whole rows
    found = {seed: {name: entry(name, seed, a) for name in VARIANTS} for seed in a.seeds}
    table = {name: [found[seed][name] for seed in a.seeds] for name in VARIANTS}
    print(f"{a.steps} steps of 256; {a.samples} samples; {a.replicas} replicas of {a.ns} ns at 2 fs; seeds {a.seeds}; excess JS")
    columns = ("samples", "simulation", "phi > 0", "residual", "about its mean", "lost", "frames a side")
    print(f"{'variant':32} " + " | ".join(f"{c:>24}" for c in columns))
    for name, rows in table.items():
        values = [
            [f"{f['samples vs reference']['excess']:.4f}" for f in rows],
            [f"{f['simulation vs reference']['excess']:.4f}" for f in rows],
            [f"{f['phi > 0']:.4f}" for f in rows],
            *([f"{f[key]:.3f}" for f in rows] for key in ("residual rms", "residual rms about mean")),
            [str(f["lost"]) for f in rows],
            [str(f["simulation vs reference"]["frames"]) for f in rows],
        ]
        print(f"{name:32} " + " | ".join(f"{' '.join(v):>24}" for v in values))
    settings = {"steps": a.steps, "samples": a.samples, "replicas": a.replicas, "ns": a.ns, "seeds": a.seeds}
    print(write_results("ablation", settings | {"variants": table}))


if __name__ == "__main__":
    main()
