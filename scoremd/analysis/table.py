"""A comparison as rows of text, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scoremd.analysis.fold import NativeStructure
from scoremd.analysis.intervals import Estimate, fraction, weighted_fraction
from scoremd.analysis.metrics import Divergence
from scoremd.analysis.observed import FOLDED_STATE
from scoremd.analysis.plane import ramachandran_plane
from scoremd.analysis.structure import largest_difference, mean_difference
from scoremd.collective_variables import has_phi_psi

if TYPE_CHECKING:
    import mdtraj
    import numpy as np
    from numpy.typing import NDArray

    from scoremd.analysis.compare import Comparison, Pair
    from scoremd.analysis.observed import Observed
    from scoremd.analysis.structure import BondDifference
    from scoremd.systems import System
    from scoremd.weighted import WeightedSamples

#: The columns, in order: (first ensemble, second ensemble, title).
COLUMNS = (
    ("samples", "reference", "samples vs reference"),
    ("simulation", "reference", "simulation vs reference"),
    ("samples", "simulation", "samples vs simulation"),
)
#: Of more bonds than this only the worst is shown.
MANY = 9
#: Stands for what is not there.
NOTHING = "–"
#: Ensembles in the order of their columns.
ENSEMBLES = ("reference", "samples", "simulation")

Row = tuple[str, str, str, str]


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with a proper minus, and no minus before a zero."""
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def interval(low: float | None, high: float | None, digits: int, *, sign: bool = False) -> str:
    """The interval in brackets with a space before it, or that there is none."""
    if low is None or high is None:
        return " [no interval]"
    return f" [{number(low, digits, sign=sign)}, {number(high, digits, sign=sign)}]"


def estimate(value: Estimate | None, digits: int, *, sign: bool = False) -> str:
    """A number and its interval."""
    if value is None:
        return NOTHING
    return number(value.value, digits, sign=sign) + interval(value.low, value.high, digits, sign=sign)


def beside_floor(value: Divergence, digits: int) -> str:
    """A value and its floor."""
    return f"{number(value.value, digits)} (floor {number(value.floor, digits)})"


def pair_rows(comparison: Comparison) -> list[Row]:
    """Rows of the three columns; see `Comparison.rows`."""

    def row(name: str, cell: Callable[[Pair], str]) -> Row:
        pairs = [comparison.pairs.get(title) for _, _, title in COLUMNS]
        first, second, third = (NOTHING if pair is None else cell(pair) for pair in pairs)
        return name, first, second, third

    some = next(iter(comparison.pairs.values()))
    rows = [
        row(f"JS divergence of {comparison.plane.name}, excess, nats", lambda p: excess(p.js)),
        row("  of it scatter of few trajectories, nats", lambda p: scatter(p.js)),
        row("  value (floor), nats", lambda p: beside_floor(p.js, 4)),
        row("  frames a side", lambda p: f"{p.js.frames:,}"),
        row("PMF error, value (floor), kT²", lambda p: beside_floor(p.pmf, 3)),
    ]
    rows += [
        row(f"Difference of population, {name}", lambda p, name=name: estimate(p.basins[name], 4, sign=True))  # type: ignore[misc]
        for name in some.basins
    ]
    if some.rmsd is not None:
        rows += [
            row(f"{some.rmsd.name}: W1 (floor), pm", lambda p: beside_floor(p.rmsd.distance, 3) if p.rmsd else NOTHING),
            row("  difference of means, pm", lambda p: estimate(p.rmsd.mean, 3, sign=True) if p.rmsd else NOTHING),
        ]
    if shows_contacts(comparison):
        rows.append(
            row(
                "Contacts, mean and largest difference",
                lambda p: f"{mean_difference(p.contacts):.4f}, {largest_difference(p.contacts):.4f}",
            )
        )
    if len(some.bonds) > MANY:
        rows += [
            row(f"Worst of {len(some.bonds)} bonds: W1 (floor), pm", lambda p: beside_floor(worst_bond(p).distance, 3)),
            row("  which", lambda p: worst_bond(p).name),
            row("  ratio of standard deviations", lambda p: estimate(worst_bond(p).sd_ratio, 3)),
        ]
        return rows
    for k, bond in enumerate(some.bonds):
        rows += [
            row(f"{bond.name}: W1 (floor), pm", lambda p, k=k: beside_floor(p.bonds[k].distance, 3)),  # type: ignore[misc]
            row("  difference of means, pm", lambda p, k=k: estimate(p.bonds[k].mean, 3, sign=True)),  # type: ignore[misc]
            row("  ratio of standard deviations", lambda p, k=k: estimate(p.bonds[k].sd_ratio, 3)),  # type: ignore[misc]
        ]
    return rows


def shows_contacts(comparison: Comparison) -> bool:
    """Whether contacts say more than noise: in long molecules, and in those that are compared on slow variables."""
    return len(next(iter(comparison.pairs.values())).bonds) > MANY or not comparison.plane.basins


def worst_bond(pair: Pair) -> BondDifference:
    """The bond whose distance differs most, floor taken away."""
    return max(pair.bonds, key=lambda bond: bond.distance.excess)


def excess(js: Divergence) -> str:
    """Excess and its interval."""
    return number(js.excess, 4) + interval(js.low, js.high, 4)


def scatter(js: Divergence) -> str:
    """The part of the excess that few trajectories explain."""
    return NOTHING if js.scatter is None else number(js.scatter, 4)


def ensemble_rows(comparison: Comparison) -> list[Row]:
    """Rows of what each ensemble shows alone; see `Comparison.ensemble_rows`."""
    seen = [comparison.ensembles.get(name) for name in ENSEMBLES]
    some = next(one for one in seen if one is not None)
    known = "simulation" in comparison.ensembles and comparison.lost_replicas is not None
    lost = str(comparison.lost_replicas) if known else NOTHING

    def trajectories(name: str) -> str:
        one = comparison.ensembles.get(name)
        if one is None:
            return NOTHING
        if name in comparison.time_blocks:
            return "not named, in blocks"
        return "independent" if one.n_groups is None else str(one.n_groups)

    def row(name: str, cells: list[str]) -> Row:
        first, second, third = cells
        return name, first, second, third

    rows = [
        row("Frames", [NOTHING if one is None else f"{one.n_frames:,}" for one in seen]),
        row("Trajectories", [trajectories(name) for name in ENSEMBLES]),
        ("Lost replicas", NOTHING, NOTHING, lost),
    ]
    rows += [
        row(f"Population of {name}", [NOTHING if one is None else estimate(one.basins[name], 4) for one in seen]) for name in some.basins
    ]
    if some.rmsd is not None:
        rows.append(
            row("RMSD from the native structure, mean, nm", [NOTHING if one is None else estimate(one.mean_rmsd, 3) for one in seen])
        )
    rows += [
        row("Frames with a broken bond", [rare(one, "broken") for one in seen]),
        row("Frames with a clash", [rare(one, "clashing") for one in seen]),
    ]
    if some.mirrored is not None:
        rows.append(row("Frames with a mirror image", [rare(one, "mirrored") for one in seen]))
    return rows


def rare(one: Observed | None, name: str) -> str:
    """A fraction of frames that should be none: the count where it is none, otherwise with its interval."""
    value: Estimate | None = None if one is None else getattr(one, name)
    if one is None or value is None:
        return NOTHING
    return f"0 of {one.n_frames:,}" if value.value == 0 else estimate(value, 5)


def weighted_rows(system: System, drawn: WeightedSamples) -> list[Row]:
    """Population of each basin, and of the folded state where the system has a native structure, in the system's reference, among samples,
    and among them with their weights; no rows where it has neither.
    """
    reference = system.reference_ensemble()
    known = None if reference is None else _states(system, reference.to_mdtraj(system.bonds))
    return [
        (
            state,
            NOTHING if known is None or reference is None else estimate(fraction(known[state], reference.walker), 4),
            estimate(fraction(inside, None), 4),
            estimate(weighted_fraction(inside, drawn.weights), 4),
        )
        for state, inside in _states(system, drawn.trajectory).items()
    ]


def _states(system: System, traj: mdtraj.Trajectory) -> dict[str, NDArray[np.bool_]]:
    """Which frames, (frame,), are in each basin and in the folded state."""
    states: dict[str, NDArray[np.bool_]] = {}
    if has_phi_psi(system):
        plane = ramachandran_plane(system)
        angles = plane.project(traj)
        states |= {basin: inside(angles) for basin, inside in plane.basins.items()}
    native = NativeStructure.of(system)
    if native is not None:
        states[FOLDED_STATE] = native.folded(traj)
    return states
