"""From what `scoremd reference` made of a peptide to its C-alpha model: how converged is the one, and how well does the other follow it?

    scoremd reference AAAAA --ns 4 --replicas 4 --hottest 555 -o AAAAA.h5
    python benchmarks/peptide_chain.py AAAAA.h5 --work DIR

Convergence: the Jensen–Shannon divergence of the first and the second half of the time on the slow variables of the C-alphas, over that of
random halves, and the radius of gyration of both. The most compact frame stands for the native structure. Then `scoremd init`, `train` and
`emulate`. Writes `results/peptide_chain_NAME.json`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from command_line import run_scoremd
from results_file import write_results

from scoremd.analysis.histograms import histogram
from scoremd.analysis.intervals import average
from scoremd.analysis.metrics import compare_js
from scoremd.analysis.plane import slow_plane
from scoremd.coarse_graining import molecule_of, select_beads
from scoremd.data import Ensemble, read_ensemble


def chain_of(ensemble: Ensemble) -> tuple[mdtraj.Trajectory, np.ndarray]:
    """The C-alphas, and the replica of each frame."""
    assert ensemble.walker is not None
    whole = ensemble.to_mdtraj()
    return whole.atom_slice(whole.topology.select("name CA")), ensemble.walker


def convergence(ensemble: Ensemble) -> dict[str, Any]:
    """How much the halves of the time differ."""
    chain, walker = chain_of(ensemble)
    topology = ensemble.topology()
    system = molecule_of("chain", topology, select_beads(topology, "name CA").tolist(), ensemble.temperature)
    chain = mdtraj.Trajectory(chain.xyz, system.topology())
    plane = slow_plane(system, chain, walker)
    half = np.arange(len(chain)) < len(chain) // 2
    counted = [
        histogram(plane.project(chain[rows]), range=plane.range, bins=plane.bins, groups=walker[rows], name=name)
        for rows, name in ((half, "first half"), (~half, "second half"), (half | ~half, "whole"))
    ]
    size = mdtraj.compute_rg(chain)
    return {
        "frames": len(chain),
        "walkers": len(np.unique(walker)),
        "halves": vars(compare_js(counted[0], counted[1], reference=counted[2])),
        "radius of gyration, nm": [vars(average(size[rows], walker[rows])) for rows in (half, ~half)],
    }


def write_compact_frame(ensemble: Ensemble, path: Path) -> None:
    """The C-alphas of the frame with the least radius of gyration."""
    chain, _ = chain_of(ensemble)
    chain[int(np.argmin(mdtraj.compute_rg(chain)))].save_pdb(str(path))


def main() -> None:
    """Measure, run the commands, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ensemble", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; an interrupted run goes on there")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--ns", type=float, default=0.05)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    ensemble, source = read_ensemble(a.ensemble), a.ensemble.resolve()
    found: dict[str, Any] = {"reference": convergence(ensemble)}
    halves, sizes = found["reference"]["halves"], found["reference"]["radius of gyration, nm"]
    print(f"{a.ensemble.name}: {found['reference']['frames']} frames of {found['reference']['walkers']} replicas; halves of the time:")
    print(f"  excess JS {halves['excess']:.4f} over {halves['floor']:.4f}; radius of gyration", end=" ")
    print(*(f"{q['value']:.4f} [{q['low']:.4f}, {q['high']:.4f}]" for q in sizes), sep=" and ", end=" nm\n")
    write_compact_frame(ensemble, a.work / "native.pdb")

    if not (a.work / "chain.yaml").exists():
        files = (source, "--native", "native.pdb", "--select", "name CA", "--temperature", ensemble.temperature)
        run_scoremd(a.work, "init", *files, "--steps", a.steps, "-o", "chain.yaml")
    # of training from its beginning alone: an interrupted one goes on, a finished one is not repeated
    afresh, start = not (a.work / "chain-model").exists(), time.monotonic()
    run_scoremd(a.work, "train", "chain.yaml")
    found["minutes of training"] = (time.monotonic() - start) / 60 if afresh else None
    run = ("-n", 4000, "--ns", a.ns, "--replicas", a.replicas, "--seed", a.seed)
    run_scoremd(a.work, "emulate", "chain", "--model", "chain-model", *run, "-o", "emulation")
    comparison = json.loads((a.work / "emulation" / "comparison.json").read_text(encoding="utf-8"))
    for name, seen in comparison["ensembles"].items():
        quantities = {"RMSD, nm": seen["native_rmsd_nm"], "mirror images": seen["mirror_images"]} | seen["populations"]
        print(f"{name:11}", *(f"{key} {q['value']:.4f} [{q['low']}, {q['high']}]" for key, q in quantities.items()), sep="  ")
    for title, pair in comparison["comparisons"].items():
        js = pair["js_nats"]
        print(f"{title:24} excess {js['excess']:.4f} [{js['low']}, {js['high']}] over {js['floor']:.4f} at {js['frames']} frames a side")
    print(f"lost replicas: {comparison['lost_replicas']}")
    settings = {"steps": a.steps, "seed": a.seed, "samples": 4000, "replicas": a.replicas, "ns": a.ns}
    print(write_results(f"peptide_chain_{a.ensemble.stem}", settings | found | {"comparison": comparison}))


if __name__ == "__main__":
    main()
