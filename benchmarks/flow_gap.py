"""What the Fokker–Planck term does to the gap between samples of the SDE and of the ODE (Deveney et al., arXiv 2311.15996).

    python benchmarks/flow_gap.py ALDP.h5 GK.h5 HE.h5 MA.h5 --work DIR

The files are ensembles in the format of `scoremd.data`. On each a small network for all times is trained by denoising, without the term and
with it, in the same number of steps; then 1,000 samples of either kind are drawn, and those of the probability-flow ODE weighed by the
energy of the forces (`benchmarks/likelihood.py` says what the columns are). What is finished lies in the working folder and stays.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from likelihood import measure
from results_file import write_results

from scoremd.data import read_ensemble
from scoremd.force_field import ForceField
from scoremd.systems import load_system
from scoremd.training.config import TrainingConfig
from scoremd.training.trainer import train

#: Of the Fokker–Planck term.
WEIGHTS = (0.0, 0.01)


def entry(file: Path, weight: float, a: argparse.Namespace) -> dict[str, Any]:
    """Train one network and measure it, unless that was done before."""
    system = load_system(file.stem)
    content = {
        "name": "flow-gap",
        "title": f"flow gap of {system.name}",
        "system": system.name,
        "data": file.resolve(),
        "output": a.work / f"{system.name}-{weight:g}-{a.steps}-{a.seed}",
        "use_forces": False,
        "network": {"scalars": 16, "vectors": 8, "radial_width": 32, "torsion_width": 128, "frozen_above": None},
        "fokker_planck": {"weight": weight, "log_snr": [0.0, 6.9]},
        "steps": a.steps,
        "learning_rate": 3e-3,
        "seed": a.seed,
    }
    done = content["output"] / f"gap-{a.n}.json"
    if not done.exists():
        train(TrainingConfig.model_validate(content))
        reference = system.beads_of(read_ensemble(file))
        found = measure(ForceField.load(content["output"]), system, a.n, a.seed, reference)
        done.write_text(json.dumps(found))
    return json.loads(done.read_text())


def main() -> None:
    """Train, measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ensembles", type=Path, nargs="+", help="each named by its system: ALDP.h5, GK.h5")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("-n", type=int, default=1000, help="samples of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    rows: dict[str, dict[str, Any]] = {}
    for file in a.ensembles:
        rows[file.stem] = {}
        for weight in WEIGHTS:
            row = rows[file.stem][f"{weight:g}"] = entry(file, weight, a)
            found = {pair: row[pair] for pair in row if " vs " in pair}
            js = (f"{pair} {q['excess']:+.4f} [{q['low']:+.4f}, {q['high']:+.4f}]" for pair, q in found.items())
            floor = row["SDE vs ODE"]["floor"]
            effective = row["effective sample size / samples"]
            print(f"{file.stem}, weight {weight:g}:", *js, f"over {floor:.4f}", f"effective {effective:.2f}", sep="  ", flush=True)
    print(write_results("flow_gap", {"steps": a.steps, "samples": a.n, "seed": a.seed, "systems": rows}))


if __name__ == "__main__":
    main()
