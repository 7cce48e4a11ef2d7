"""A model from somebody else's trajectory: random frames of alanine dipeptide with forces, as files that mdtraj reads, and the commands.

    python benchmarks/own_trajectory.py ALDP.h5 --work DIR

ALDP.h5 is an ensemble with forces in the format of `scoremd.data`. Its frames are written as XTC and PDB files with forces beside them;
`scoremd init`, `train` and `emulate` do the rest, with two threads. Prints how far samples and simulation are from those frames, and the
time of the training, and writes `results/own_trajectory.json`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
from command_line import run_scoremd
from results_file import write_results

from scoremd.data import read_ensemble

SELECT = "(resname ACE and name C) or (resname ALA and name N CA C) or (resname NME and name N)"


def write_files(source: Path, folder: Path, frames: int, seed: int) -> float:
    """Somebody's files: run.xtc, top.pdb, forces.npy. Returns the temperature."""
    ensemble = read_ensemble(source)
    chosen = np.sort(np.random.default_rng(seed).permutation(ensemble.n_frames)[:frames])
    trajectory = mdtraj.Trajectory(ensemble.positions[chosen], ensemble.topology())
    trajectory.save_xtc(str(folder / "run.xtc"))
    trajectory[0].save_pdb(str(folder / "top.pdb"))
    if ensemble.forces is None:
        sys.exit(f"{source} has no forces")
    np.save(folder / "forces.npy", ensemble.forces[chosen])
    return ensemble.temperature


def main() -> None:
    """Run the commands and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ensemble", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; an interrupted run goes on there")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--ns", type=float, default=0.1)
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    temperature = write_files(a.ensemble, a.work, a.frames, a.seed)

    if not (a.work / "mine.yaml").exists():
        files = ("run.xtc", "--topology", "top.pdb", "--forces", "forces.npy")
        run_scoremd(a.work, "init", *files, "--select", SELECT, "--temperature", temperature, "--steps", a.steps, "-o", "mine.yaml")
    # of training from its beginning alone: an interrupted one goes on, a finished one is not repeated
    afresh, start = not (a.work / "mine-model").exists(), time.monotonic()
    run_scoremd(a.work, "train", "mine.yaml")
    minutes = (time.monotonic() - start) / 60 if afresh else None
    run = ("-n", 8000, "--ns", a.ns, "--replicas", a.replicas, "--seed", a.seed)
    run_scoremd(a.work, "emulate", "mine", "--model", "mine-model", *run, "-o", "emulation")
    found = json.loads((a.work / "emulation" / "comparison.json").read_text(encoding="utf-8"))
    rows = {title: pair["js_nats"] for title, pair in found["comparisons"].items()}
    took = "trained before" if minutes is None else f"{minutes:.1f} minutes"
    print(f"{a.frames} frames, {a.steps} steps of each network, {took}; lost replicas: {found['lost_replicas']}")
    for title, js in rows.items():
        low, high = (f"{js[end]:.4f}" if js[end] is not None else "-" for end in ("low", "high"))
        print(f"{title:24} excess {js['excess']:.4f} [{low}, {high}] over {js['floor']:.4f} at {js['frames']} frames a side")
    settings = {"frames": a.frames, "steps": a.steps, "seed": a.seed, "samples": 8000, "replicas": a.replicas, "ns": a.ns}
    print(write_results("own_trajectory", settings | {"minutes": minutes, "lost_replicas": found["lost_replicas"], "js_nats": rows}))


if __name__ == "__main__":
    main()
