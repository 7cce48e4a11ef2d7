"""The picture of the README: free-energy maps of reference, samples and simulation on one scale.

    python benchmarks/picture.py EMULATION force_fields/alanine-dipeptide/maps.png

EMULATION is a folder that `scoremd emulate ALDP` wrote.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scoremd.analysis.free_energy import free_energy_map
from scoremd.analysis.plots import COLOURS, HIGHEST
from scoremd.emulation import compare_trajectories
from scoremd.systems import load_system
from scoremd.trajectory_files import read_trajectory
from scoremd.units import thermal_energy


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("emulation", type=Path)
    parser.add_argument("output", type=Path)
    a = parser.parse_args()
    system = load_system("ALDP")
    samples = read_trajectory(a.emulation / "samples.h5", system.topology()).trajectory
    run, replicas, lost = read_trajectory(a.emulation / "simulation.h5", system.topology())
    comparison = compare_trajectories(system, samples, run, replicas, reference=system.reference_ensemble(), lost=lost)
    kt = thermal_energy(comparison.temperature)
    figure = Figure(figsize=(14, 3.6), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.2))
    maps = {name: free_energy_map(seen.map(), kt) for name, seen in comparison.ensembles.items()}
    lowest = min(float(np.nanmin(m)) for m in maps.values())
    for axis, name in zip(axes, ("reference", "samples", "simulation"), strict=False):
        image = axis.imshow(
            (maps[name] - lowest).T, origin="lower", aspect="auto", extent=(-180, 180, -180, 180), cmap="viridis_r", vmin=0, vmax=HIGHEST
        )
        frames = comparison.ensembles[name].n_frames
        axis.set(title=f"{name} ({frames:,} frames)", xlabel="φ (°)", ylabel="ψ (°)", xticks=(-180, -90, 0, 90, 180))
        axis.set_yticks((-180, -90, 0, 90, 180))
    figure.colorbar(image, ax=axes[2], label="free energy (kJ/mol)")
    for name, style in (("reference", "-"), ("samples", "--"), ("simulation", "-.")):
        counts, edges = np.histogram(np.degrees(comparison.ensembles[name].variables[:, 0]), 64, (-180, 180))
        with np.errstate(divide="ignore"):
            energy = -kt * np.log(counts / counts.max())
        axes[3].plot(0.5 * (edges[1:] + edges[:-1]), energy, style, color=COLOURS[name], label=name)
    axes[3].set(title="along φ", xlabel="φ (°)", ylabel="free energy (kJ/mol)", xticks=(-180, -90, 0, 90, 180), ylim=(-1, 30))
    axes[3].legend(frameon=False)
    figure.savefig(a.output, dpi=90)


if __name__ == "__main__":
    main()
