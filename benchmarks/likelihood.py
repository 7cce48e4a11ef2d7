"""How well the two uses of one model agree: samples of the flow, whose likelihood is known, weighed by the energy of the forces.

    python benchmarks/likelihood.py ALDP KS AT LW

Of each system: effective sample size of the weighted samples in their number; populations of basins in the reference, among samples of the
reverse SDE, which `scoremd sample` draws, among those of the probability-flow ODE, and among these with their weights, which is what an
endless simulation would give; and the gap between SDE and ODE (Deveney et al., arXiv 2311.15996) as the excess of JS over the floor of the
reference.
"""

import argparse

import numpy as np
import torch
from results_file import write_results

from scoremd import bound_model
from scoremd.analysis.histograms import histogram
from scoremd.analysis.intervals import fraction, weighted_fraction
from scoremd.analysis.metrics import compare_js
from scoremd.analysis.plane import ramachandran_plane
from scoremd.data import Ensemble
from scoremd.force_field import ForceField, model_for
from scoremd.systems import System, load_system
from scoremd.weighted import WeightedSamples

#: Samples whose likelihood is computed by a finer flow, and how much finer.
FEW, FINER = 64, 4


def error_of_likelihood(force_field: ForceField, system: System, weighted: WeightedSamples) -> dict[str, float]:
    """How much ln p changes, less its median change, when the flow is computed in finer steps."""
    intervals = bound_model.FLOW_INTERVALS
    bound_model.FLOW_INTERVALS = FINER * intervals
    finer = force_field.weigh(system, weighted.trajectory[:FEW]).log_likelihood
    bound_model.FLOW_INTERVALS = intervals
    change = finer - weighted.log_likelihood[:FEW]
    size = np.abs(change - np.median(change))
    return {"median": float(np.median(size)), "90 % below": float(np.quantile(size, 0.9)), "largest": float(size.max())}


def measure(force_field: ForceField, system: System, n: int, seed: int, reference: Ensemble) -> dict[str, object]:
    """The figures of one system, whose reference has as many beads."""
    weighted = force_field.weighted_samples(system, n, seed)
    drawn = {"SDE": force_field.sample(system, n, seed), "ODE": weighted.trajectory, "reference": reference.to_mdtraj(system.bonds)}
    plane = ramachandran_plane(system)
    angles = {name: plane.project(frames) for name, frames in drawn.items()}
    groups = {"reference": reference.walker}
    counted = {
        name: histogram(points, range=plane.range, bins=plane.bins, groups=groups.get(name), name=name) for name, points in angles.items()
    }
    found: dict[str, object] = {"effective sample size / samples": weighted.effective_sample_size / n}
    for basin, inside in plane.basins.items():
        found[basin] = {name: vars(fraction(inside(points), groups.get(name))) for name, points in angles.items()} | {
            "weighted": vars(weighted_fraction(inside(angles["ODE"]), weighted.weights))
        }
    found["error of ln p"] = error_of_likelihood(force_field, system, weighted)
    for a, b in (("SDE", "reference"), ("ODE", "reference"), ("SDE", "ODE")):
        found[f"{a} vs {b}"] = vars(compare_js(counted[a], counted[b], reference=counted["reference"]))
    return found


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("-n", type=int, default=1000, help="samples of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    rows = {}
    for name in a.systems:
        system = load_system(name)
        force_field = ForceField.load(model_for(system))
        reference = system.reference_ensemble()
        assert reference is not None
        row = rows[system.name] = {"model": force_field.hash} | measure(force_field, system, a.n, a.seed, reference)
        print(f"{system.name}, model {force_field.hash}: effective sample size {row['effective sample size / samples']:.2f} of {a.n}")
        print("  error of ln p, nats:", *(f"{key} {value:.3f}" for key, value in row["error of ln p"].items()), sep="  ")
        for basin in ramachandran_plane(system).basins:
            shown = (f"{kind} {q['value']:.4f} [{q['low']:.4f}, {q['high']:.4f}]" for kind, q in row[basin].items())
            print(f"  {basin}:", *shown, sep="  ")
        for pair in ("SDE vs reference", "ODE vs reference", "SDE vs ODE"):
            js = row[pair]
            print(f"  {pair}: excess JS {js['excess']:+.4f} [{js['low']:+.4f}, {js['high']:+.4f}] over {js['floor']:.4f}", flush=True)
    print(write_results("likelihood", {"samples": a.n, "seed": a.seed, "systems": rows}))


if __name__ == "__main__":
    main()
