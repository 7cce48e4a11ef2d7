"""The picture of the Müller–Brown benchmark: free energies of samples and simulation beside the exact ones."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

#: kT that colours go up to: one frame of 50,000 in a cell.
CEILING = 6.5


def _free_energy(counts: np.ndarray, bins: int) -> np.ndarray:
    p = counts[:-1].reshape(bins, bins) / counts.sum()
    with np.errstate(divide="ignore"):
        return -np.log(p)


def _profile(counts: np.ndarray, bins: int, width: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -np.log(counts[:-1].reshape(bins, bins).sum(1) / counts.sum() / width)


def plot(path: Path, exact: np.ndarray, counts: dict[str, np.ndarray], settings: dict, variants: list[str]) -> None:
    """One row a variant: samples and simulation of its first seed, and the profile along x of every seed."""
    bins, limits = settings["bins"], np.array(settings["limits"])
    width = np.diff(limits[0])[0] / bins
    middle = limits[0, 0] + width * (np.arange(bins) + 0.5)
    variants = [v for v in variants if any(key.startswith(f"{v}/") for key in counts)]
    figure, axes = plt.subplots(
        len(variants), 4, figsize=(13, 2.7 * len(variants)), squeeze=False, layout="constrained", width_ratios=[1, 1, 1, 1.25]
    )
    reference = _free_energy(exact, bins)
    low = reference.min()
    for row, variant in zip(axes, variants, strict=True):
        seeds = [counts[key] for key in sorted(counts) if key.startswith(f"{variant}/")]
        maps = {"exact": reference, "samples": _free_energy(seeds[0][0], bins), "simulation": _free_energy(seeds[0][1], bins)}
        for axis, (title, values) in zip(row, maps.items(), strict=False):
            image = axis.imshow(
                np.ma.masked_greater(values - low, CEILING).T,
                origin="lower",
                extent=limits.ravel(),
                aspect="auto",
                cmap="viridis",
                vmin=0,
                vmax=CEILING,
            )
            axis.set_title(title if title == "exact" else f"{variant}: {title}", fontsize=9)
            axis.set(xlabel="x", ylabel="y")
        figure.colorbar(image, ax=row[2], label="free energy, kT")
        row[3].plot(middle, _profile(exact, bins, width), "k", lw=2.5, label="exact")
        for k, (samples, simulation) in enumerate(seeds):
            row[3].plot(middle, _profile(samples, bins, width), "C0", lw=1, label=None if k else "samples")
            row[3].plot(middle, _profile(simulation, bins, width), "C1", lw=1, label=None if k else "simulation")
        row[3].set(ylim=(-0.8, 5), xlim=limits[0], xlabel="x", ylabel="free energy, kT")
        row[3].set_title("profile along x, all seeds", fontsize=9)
    axes[0, 3].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
