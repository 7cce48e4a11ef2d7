"""How good the samples of a training run are so far, on the validation peptides: what a model of dipeptides is chosen by.

    python benchmarks/validation.py training.yaml --data validation

Takes the averaged weights of the run's last checkpoint, or of its finished model, and adds a row to `validation.csv` in its folder: the
step, when, and the excess Jensen–Shannon divergence of the samples, of each peptide and in the mean.
"""

import argparse
import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from scoremd.analysis.compare import compare
from scoremd.data import read_ensemble
from scoremd.family import Family
from scoremd.force_field import ForceField
from scoremd.systems import find_system
from scoremd.training.config import read_config
from scoremd.training.trainer import averaged_so_far


def main() -> None:
    """Sample, compare, print and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of reference ensembles, named by their sequences")
    parser.add_argument("--samples", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    config = read_config(a.config)
    family = find_system(config.system)
    assert isinstance(family, Family)
    description, networks, steps = averaged_so_far(config)
    force_field = ForceField(description, networks)
    excess: dict[str, float] = {}
    for path in sorted(a.data.glob("*.h5")):
        system = family.find(path.stem)
        assert system is not None
        samples = force_field.sample(system, a.samples, seed=0)
        found = compare(samples, None, system, reference=system.beads_of(read_ensemble(path))).to_dict()
        js = found["comparisons"]["samples vs reference"]["js_nats"]
        populations = (found["ensembles"][name]["populations"]["phi > 0"]["value"] for name in ("reference", "samples"))
        excess[path.stem] = js["excess"]
        shown = "phi > 0 {:.3f} {:.3f}".format(*populations)
        print(
            f"{path.stem} floor {js['floor']:.4f} excess {js['excess']:+.4f} {shown} mean so far {np.mean(list(excess.values())):.4f}",
            flush=True,
        )
    row = {
        "step": steps,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": a.samples,
        "mean": np.mean(list(excess.values())),
    }
    log = config.output / "validation.csv"
    new = not log.exists()
    with log.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow([*row, *excess])
        writer.writerow([q if isinstance(q, int | str) else f"{q:.5f}" for q in (*row.values(), *excess.values())])
    print(log)


if __name__ == "__main__":
    main()
