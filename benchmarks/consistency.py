"""What consistency between noise levels did to the shipped model of all dipeptides, on molecules that it has not seen.

    python benchmarks/consistency.py --data validation

The model is a mixture over time of two networks: the one for small times, which gives the forces, went on from the other one with dual
score matching; then both went on on their own. Each alone at all times, and the mixture: excess JS of samples, of simulations that start
from them, and of one against the other, and the root mean square of the Fokker–Planck residual of the network that gives the forces, over
the noise levels, and about its mean at each. `--data` is a folder of ensembles, named by their sequences: the validation peptides, by which
models are chosen.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from residual import residual_rms
from results_file import write_results

from scoremd.analysis.table import COLUMNS
from scoremd.data import read_ensemble
from scoremd.emulation import compare_trajectories
from scoremd.family import Family
from scoremd.force_field import ForceField
from scoremd.systems import find_system

TITLES = [title for _, _, title in COLUMNS]
_FRAMES = 16


def variants(shipped: ForceField) -> dict[str, ForceField]:
    """Each network alone, and both."""
    d = shipped.description.model_copy(update={"time_ranges": ((0.0, 1.0),)})
    consistent, plain = shipped.experts
    return {"without": ForceField(d, [plain]), "with": ForceField(d, [consistent]), "mixture": shipped}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--ns", type=float, default=0.01, help="length of each replica")
    parser.add_argument("--peptides", nargs="+", help="by default all of the folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    family, shipped = find_system("dipeptides"), ForceField.load("dipeptides")
    assert isinstance(family, Family)
    found = variants(shipped)
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in found}
    print(f"model {shipped.hash}; {a.samples} samples, {a.replicas} replicas of {a.ns} ns at 2 fs, seed {a.seed}")
    print("of each variant: excess JS", *TITLES, "rms residual about its mean, lost replicas", sep=", ")
    paths = sorted(a.data.glob("*.h5"))
    for path in [p for p in paths if a.peptides is None or p.stem in a.peptides]:
        system = family.find(path.stem)
        assert system is not None
        reference = system.beads_of(read_ensemble(path))
        residuals: dict[int, tuple[float, float]] = {}  # by the network that gives the forces, which two variants share
        for name, force_field in found.items():
            samples = force_field.sample(system, a.samples, seed=a.seed)
            run = force_field.simulate(system, ns=a.ns, replicas=a.replicas, seed=a.seed)
            pairs = compare_trajectories(system, samples, run.trajectory, run.replica, reference=reference, lost=len(run.lost)).pairs
            key = id(force_field.experts[0])
            if key not in residuals:
                residuals[key] = residual_rms(force_field.bind(system), reference.positions, _FRAMES, a.seed)
            rms, about_mean = residuals[key]
            row = {f"{title}: {key}": getattr(pairs[title].js, key) for title in TITLES for key in ("floor", "excess")}
            rows[name][path.stem] = row | {"residual": rms, "residual about mean": about_mean, "lost": float(len(run.lost))}
        cells = [
            " ".join(f"{row[path.stem][f'{title}: excess']:+.4f}" for title in TITLES)
            + f" {row[path.stem]['residual about mean']:.3f} {row[path.stem]['lost']:.0f}"
            for row in rows.values()
        ]
        print(path.stem, *cells, sep=" | ", flush=True)
    means = {name: {key: float(np.mean([q[key] for q in row.values()])) for key in next(iter(row.values()))} for name, row in rows.items()}
    for name, mean in means.items():
        print(f"{name:8}", *(f"{key} {value:.4f}" for key, value in mean.items()), sep=" | ")
    settings = {"model": shipped.hash, "samples": a.samples, "replicas": a.replicas, "ns": a.ns, "seed": a.seed}
    settings["frames of the residual"] = _FRAMES
    print(write_results("consistency", settings | {"mean": means, "peptides": rows}))


if __name__ == "__main__":
    main()
