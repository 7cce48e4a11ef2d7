"""What a comparison comes to in words: do the ensembles agree, within what, and where not.

Two ensembles **agree** if the excess and its whole interval are at or below the limit, **differ** if all of it is above, and otherwise, or
if the histograms hold too few frames to show a difference, it **cannot be decided** from these frames. A limit, which the system's file
sets, says what is good enough; it is no test of equality.
For small differences an excess J is a root mean square difference of sqrt(8 J) kT in free energy. An interval wholly
below zero says that the two are more alike than independent draws of one ensemble: they share frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scoremd.analysis.table import COLUMNS, estimate, number

if TYPE_CHECKING:
    from scoremd.analysis.compare import Comparison, Pair

#: What is worth a sentence: a population off by this much free energy (kT), a bond's mean (pm), its standard deviation.
WORTH_KT, WORTH_PM, WORTH_RATIO = 0.1, 0.2, 0.03
#: A floor (nats) so near to ln 2, the divergence of ensembles without a cell in common, that excesses shrink: what differs
#: could then pass for what agrees.
SATURATED = 0.4

Status = Literal["agree", "differ", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """The answer for one column.

    Attributes
    ----------
    title
        Of the column.
    status
        ``agree``, ``differ`` or ``undecided``.
    excess, limit
        Nats, as text.
    sentence
        Why.
    """

    title: str
    status: Status
    excess: str
    limit: str
    sentence: str


def free_energy_of(js: float) -> float:
    """Root mean square difference in free energy, kT, that a small divergence in nats stands for."""
    return float(np.sqrt(8 * max(js, 0)))


def judge(pair: Pair, limit: float) -> Verdict:
    """Hold a column's excess against a limit in nats."""
    js = pair.js
    about = f"{number(free_energy_of(limit), 2)} kT"
    if js.low is None or js.high is None:
        status: Status = "undecided"
        why = "a single trajectory has no interval"
    elif js.low > limit:
        status, why = "differ", f"the whole interval is above the limit (about {about} of free energy)"
    elif js.floor > SATURATED:
        status, why = "undecided", "so few frames share hardly a cell of the histogram, whatever they are drawn from; more frames tell"
    elif js.high <= limit and js.excess <= limit:
        status, why = "agree", f"the whole interval is within the limit (about {about} of free energy)"
    else:
        status, why = "undecided", "the interval reaches across the limit; more frames or longer trajectories narrow it"
    between = "" if js.low is None or js.high is None else f"{number(js.low, 4)} to {number(js.high, 4)}, "
    sentence = f"{between}limit {number(limit, 3)}: {why}."
    return Verdict(pair.title, status, number(js.excess, 4), number(limit, 3), sentence)


def verdicts(comparison: Comparison) -> list[Verdict]:
    """The answer for each column that can be filled, in order."""
    return [judge(comparison.pairs[title], comparison.agreement[title]) for _, _, title in COLUMNS if title in comparison.pairs]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"


def headline(comparison: Comparison) -> str:
    """One or two sentences: which agree, which differ, which cannot be told."""
    judged = verdicts(comparison)
    undecided = [comparison.pairs[v.title].js for v in judged if v.status == "undecided"]
    why = "too few frames or too short trajectories to tell whether they agree within the limit"
    if undecided and all(js.low is None for js in undecided):
        why = "one of two ensembles is a single trajectory, so that there is no interval"
    said = {"agree": "agree", "differ": "differ", "undecided": f"are undecided: {why}"}
    names = [name for name in ("samples", "simulation", "reference") if name in comparison.ensembles]
    if {v.status for v in judged} == {"agree"}:
        every = _listed(names)
        exceptions = ", with the exceptions below" if findings(comparison) else ""
        on = comparison.plane.name.replace(" ", "\u00a0")
        text = f"{every} agree on {on} within the limits{exceptions}."
    else:
        by_status = {status: [v.title for v in judged if v.status == status] for status in said}
        clauses = [
            f"{_listed(titles) if len(titles) > 1 else titles[0].replace(' vs ', ' and ')} {said[status]}"
            for status, titles in sorted(by_status.items(), key=lambda item: ("differ", "undecided", "agree").index(item[0]))
            if titles
        ]
        exceptions = "; see the exceptions below" if findings(comparison) and not by_status["differ"] else ""
        text = "; ".join(clauses) + exceptions + "."
    return text[0].upper() + text[1:]


def findings(comparison: Comparison) -> list[str]:
    """Where they do not agree: populations, bonds, molecules that are not whole, lost replicas."""
    found = []
    if comparison.lost_replicas:
        replicas = "replica" if comparison.lost_replicas == 1 else "replicas"
        found.append(f"{comparison.lost_replicas} {replicas} of the simulation blew up and ended early; frames from before count.")
    for first, second, title in COLUMNS:
        if title in comparison.pairs:
            high = comparison.pairs[title].js.high
            if high is not None and high < 0:
                found.append(
                    f"{title.capitalize()}: more alike than independent draws would be; the two share frames, or one repeats the other."
                )
            found += _populations(comparison, first, second, comparison.pairs[title])
    for name, what in (("broken", "a broken bond"), ("clashing", "a clash"), ("mirrored", "a mirror image")):
        for ensemble, seen in comparison.ensembles.items():
            value = getattr(seen, name)
            if value is not None and value.value > 0:
                found.append(f"{ensemble.capitalize()}: a fraction {estimate(value, 5)} of frames has {what}.")
    for title, pair in comparison.pairs.items():
        found += _bonds(title, pair)
    return found


def _populations(comparison: Comparison, first: str, second: str, pair: Pair) -> list[str]:
    """Populations that differ by more than `WORTH_KT`, and by more than chance."""
    found = []
    for basin, change in pair.basins.items():
        p, q = (comparison.ensembles[name].basins[basin].value for name in (first, second))
        shift = abs(np.log(p / q)) if min(p, q) > 0 else np.inf
        clear = change.low is None or change.high is None or change.low > 0 or change.high < 0
        if clear and max(p, q) > 0 and shift > WORTH_KT:
            size = f", {number(float(shift), 2)} kT" if np.isfinite(shift) else ""
            found.append(
                f"Population of {basin}: {number(p, 4)} in the {first}, {number(q, 4)} in the {second} "
                f"(difference {estimate(change, 4, sign=True)}{size})."
            )
    return found


def _bonds(title: str, pair: Pair) -> list[str]:
    """The bonds whose mean or spread is off by more than is worth a word, and by more than chance."""
    means = [b.name for b in pair.bonds if _off(b.mean.value, b.mean.low, b.mean.high, 0, WORTH_PM)]
    spreads = [b.name for b in pair.bonds if _off(b.sd_ratio.value, b.sd_ratio.low, b.sd_ratio.high, 1, WORTH_RATIO)]
    found = []
    if means:
        worst = max(abs(b.mean.value) for b in pair.bonds)
        found.append(f"{title.capitalize()}: mean length off by up to {number(worst, 2)} pm ({', '.join(means)}).")
    if spreads:
        ratios = [b.sd_ratio.value for b in pair.bonds if b.name in spreads]
        low, high = number(min(ratios), 2), number(max(ratios), 2)
        ratio = low if low == high else f"{low} to {high}"
        found.append(f"{title.capitalize()}: ratio of the standard deviations of the length {ratio} ({', '.join(spreads)}).")
    return found


def _off(value: float, low: float | None, high: float | None, right: float, worth: float) -> bool:
    clear = low is None or high is None or low > right or high < right
    return clear and abs(value - right) > worth
