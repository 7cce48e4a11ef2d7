"""What each part of the training target does for alanine dipeptide: five variants, the same steps, several seeds.

    python benchmarks/ablation.py --data ALDP.h5 --seeds 0 1 2

For each variant: excess JS of a simulation against the reference, population of phi > 0, and the root mean square of the Fokker–Planck
residual over the noise levels (about its mean at each level: variants without the term do not learn the normalisation). Finished entries
are kept in the working folder, interrupted trainings and simulations go on.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import write_results

from scoremd.diffusion.fokker_planck import exact_residual
from scoremd.diffusion.losses import add_noise
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
LEVELS = np.arange(-1.0, 6.01, 0.5)


def residual_rms(force_field: ForceField, seed: int) -> float:
    """Root mean square over `LEVELS` of the standard deviation of the residual among 256 noised reference frames."""
    model = force_field.bind("ALDP")
    reference = model.system.reference_ensemble()
    assert reference is not None
    generator, basis = torch.Generator().manual_seed(seed), model.space.basis()
    frames = torch.from_numpy(reference.positions[np.random.default_rng(seed).integers(0, reference.n_frames, 256)])
    clean = model.space.project(frames * force_field.description.length_scale)
    variances = []
    for level in LEVELS:
        log_snr = torch.full((256,), float(level))
        x = add_noise(clean, model.space.noise(256, generator), log_snr)
        variances.append(float(exact_residual(lambda a, b: model.experts[0](a, b, model.molecule), x, log_snr, basis).var()))
    return float(np.sqrt(np.mean(variances)))


def entry(name: str, seed: int, a: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one variant with one seed, unless that was done before."""
    folder = a.work / f"{name.replace(' ', '-')}-{seed}-{a.steps}"
    done = folder / f"result-{a.ns}.json"
    if done.exists():
        return json.loads(done.read_text())
    forces, frozen, weight = VARIANTS[name]
    config = TrainingConfig.model_validate(
        {
            "name": "ablation",
            "title": name,
            "system": "ALDP",
            "data": a.data.resolve(),
            "output": folder,
            "use_forces": forces,
            "network": {"scalars": 16, "vectors": 8, "radial_width": 32, "torsion_width": 128, "frozen_above": frozen},
            "fokker_planck": {"weight": weight, "log_snr": [0.0, 3.5 if frozen else 5.0]},
            "steps": a.steps,
            "learning_rate": 3e-3,
            "seed": seed,
        }
    )
    started = time.process_time()
    if not (folder / "model.safetensors").exists():
        train(config)
    spent = time.process_time() - started
    force_field = ForceField.load(folder)
    settings = SimulationSettings(a.ns, 256, seed)
    result = emulate(force_field, load_system("ALDP"), folder / f"emulation-{a.ns}", samples=20000, settings=settings, command="ablation")
    content = result.comparison.to_dict()
    found = {
        "training CPU s": spent,
        "residual rms": residual_rms(force_field, seed),
        "phi > 0": content["ensembles"]["simulation"]["populations"]["phi > 0"]["value"],
        "lost": content["lost_replicas"],
        **{title: pair["js_nats"] for title, pair in content["comparisons"].items()},
    }
    done.write_text(json.dumps(found))
    return found


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="ensemble with forces, in our HDF5 format")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--ns", type=float, default=0.2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "scoremd-ablation")
    a = parser.parse_args()
    torch.set_num_threads(1)
    table = {name: [entry(name, seed, a) for seed in a.seeds] for name in VARIANTS}
    print(f"{a.steps} steps of 256; 256 replicas of {a.ns} ns at 2 fs; seeds {a.seeds}; excess JS; reference phi > 0: 0.0183")
    print(f"{'variant':34} {'samples':>16} {'simulation':>16} {'phi > 0':>16} {'residual':>14} {'lost':>5} {'CPU s':>6}")
    for name, found in table.items():
        values = [
            [f["samples vs reference"]["excess"] for f in found],
            [f["simulation vs reference"]["excess"] for f in found],
            [f["phi > 0"] for f in found],
            [f["residual rms"] for f in found],
        ]
        cells = " ".join(f"{np.mean(v):8.4f}±{np.std(v, ddof=1) if len(v) > 1 else 0:.4f}" for v in values)
        print(f"{name:34} {cells} {sum(f['lost'] for f in found):5d} {np.mean([f['training CPU s'] for f in found]):6.0f}")
    print(write_results("ablation", {"steps": a.steps, "ns": a.ns, "seeds": a.seeds, "variants": table}))


if __name__ == "__main__":
    main()
