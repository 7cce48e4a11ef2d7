"""What this installation is, and a self-test with known answers: `scoremd doctor`.

Imports wait until a check needs them: a package that is broken then is a line that says so, and the other checks go on.
"""

import importlib
import itertools
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scoremd.errors import ScoreMDError
from scoremd.resources import packaged

if TYPE_CHECKING:
    from torch import Tensor

    from scoremd.bound_model import BoundModel
    from scoremd.data import Ensemble
    from scoremd.force_field import ForceField

_PACKAGES = ("scoremd", "torch", "openmm", "mdtraj", "e3nn", "numpy")
#: Up to which two ways of computing the same in float32 agree: energies in kT, forces relative to their root mean square. It is five
#: times and more what was seen.
_ROUNDING = 1e-3
#: Up to which a measured mean may be off, in standard errors.
_CHANCE = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes
    ----------
    subject : what was looked at
    status : "skipped" if it needs what this machine lacks and ScoreMD does without
    said : what it is, what was measured, or what is wrong
    """

    subject: str
    status: Literal["ok", "skipped", "wrong"]
    said: str


class _SkippedError(Exception):
    """Why a check cannot be made here."""


def examine() -> Iterator[Finding]:
    """Versions, processor, compiler and shipped models, then the self-test, each as soon as it is known."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", platform.python_version),
        *((package, partial(_version, package)) for package in _PACKAGES),
        ("processor", _processor),
        ("GPU", _gpu),
        ("compiler", _compiler),
        ("cache", _cache),
        *(
            (f"model {config.parent.name}", partial(_model, config.parent))
            for config in sorted(packaged("force_fields").glob("*/config.yaml"))
        ),
        ("compiled = as written", _compiled_is_as_written),
        ("force = -slope of energy", _force_is_slope),
        ("rotation", _rotation),
        ("OpenMM = engine", _openmm_is_engine),
        ("sampling", _sampling),
        ("Langevin dynamics", _langevin),
    ]
    for subject, check in checks:
        yield _finding(subject, check)


def _finding(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, "ok", check())
    except _SkippedError as reason:
        return Finding(subject, "skipped", str(reason))
    except ScoreMDError as error:
        return Finding(subject, "wrong", str(error))
    except Exception as error:  # noqa: BLE001  a broken installation raises anything
        return Finding(subject, "wrong", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _version(package: str) -> str:
    importlib.import_module(package)
    return version(package)


def _processor() -> str:
    import torch

    return f"cores: {len(os.sched_getaffinity(0))}, threads of torch: {torch.get_num_threads()}"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none, which only training would use"


def _needed_compiler() -> str:
    from scoremd.compiler import find_compiler

    compiler = find_compiler()
    if compiler is None:
        raise _SkippedError("no C++ compiler (g++, or CXX set to another): everything runs uncompiled, many times slower")
    return compiler


def _compiler() -> str:
    compiler = _needed_compiler()
    shown = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True)  # noqa: S603  as it is called to compile
    return f"{compiler}: {shown.stdout.splitlines()[0]}"


def _cache() -> str:
    from scoremd.compiler import cache_folder

    _needed_compiler()
    try:
        return f"{cache_folder()} can be written to"
    except ScoreMDError as error:
        raise ScoreMDError(f"{error}; every run compiles anew, which takes half a minute (XDG_CACHE_HOME names another place)") from None


def _model(folder: Path) -> str:
    from scoremd.figures import FIGURES, read_figures
    from scoremd.force_field import ForceField

    found, figures = ForceField.load(folder).hash, read_figures(folder)
    if figures is not None and figures.model != found:
        raise ScoreMDError(f"{found}, but {FIGURES} beside it is of {figures.model}: the model is damaged, or was changed since")
    return found


def _shipped() -> "tuple[ForceField, BoundModel, Ensemble]":
    """The model of alanine dipeptide, bound, and the reference."""
    from scoremd.force_field import ForceField
    from scoremd.systems import load_system

    model = ForceField.load("alanine-dipeptide", packaged("force_fields"))
    bound = model.bind(load_system("alanine-dipeptide", packaged("systems")))
    reference = bound.system.reference_ensemble()
    if reference is None:
        raise ScoreMDError(f"{bound.system.name}: has no reference ensemble")
    return model, bound, reference


def _frames(reference: "Ensemble") -> "Tensor":
    """Sixteen frames, (frame, bead, 3) nm."""
    import torch

    return torch.from_numpy(reference.positions[:: len(reference.positions) // 16][:16].copy())


def _size(forces: "Tensor") -> float:
    return float(forces.square().mean().sqrt())


def _compared(first: "tuple[Tensor, ...]", second: "tuple[Tensor, ...]", kt: float) -> str:
    """Say by how much two ways to energies (frame,) and forces (frame, bead, 3) differ; a ScoreMDError if that is more than rounding."""
    energy, force = float((first[0] - second[0]).abs().max()) / kt, _size(first[1] - second[1]) / _size(second[1])
    return _judged(f"energies differ by {energy:.1g} kT at most, forces by {force:.1g} of their size", max(energy, force), _ROUNDING)


def _judged(said: str, error: float, limit: float) -> str:
    if not error <= limit:  # nor if it is not a number
        raise ScoreMDError(f"{said}; right would be up to {limit:g}")
    return said


def _compiled_is_as_written() -> str:
    import torch

    _needed_compiler()
    model, bound, reference = _shipped()
    if not bound.compiled:
        raise ScoreMDError("compilation failed: everything runs uncompiled, many times slower")
    log_snr = bound.schedule.log_snr(torch.tensor([model.description.simulation_time], dtype=torch.float64)).float()
    x = _frames(reference) * model.description.length_scale
    return _compared(bound.at_noise(log_snr)(x), bound.energy_and_score(x, log_snr), 1.0)


def _force_is_slope() -> str:
    import torch

    _, bound, reference = _shipped()
    function, x = bound.forces(), _frames(reference)
    step = 2e-4  # nm; with a shorter one rounding errs more, with a longer one curvature
    steps = step * torch.eye(x[0].numel()).reshape(-1, *x.shape[1:])
    ahead, behind = (function((x[:, None] + s).flatten(0, 1))[0] for s in (steps, -steps))
    forces = function(x)[1]
    error = _size(forces + (ahead - behind).reshape(x.shape) / (2 * step)) / _size(forces)
    return _judged(f"they differ by {error:.1g} of the forces' size", error, _ROUNDING)


def _rotation() -> str:
    import torch

    from scoremd.units import thermal_energy

    model, bound, reference = _shipped()
    function, x = bound.forces(), _frames(reference)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    turn *= torch.linalg.det(turn)  # a mirror image would have another energy
    energies, forces = function(x)
    return _compared(function(x @ turn), (energies, forces @ turn), thermal_energy(model.description.temperature))


def _openmm_is_engine() -> str:
    import openmm
    import torch
    from openmm import unit

    from scoremd.units import thermal_energy

    model, bound, reference = _shipped()
    x = _frames(reference)
    context = openmm.Context(model.create_openmm(bound.system)[0], openmm.VerletIntegrator(0.001))
    energies, forces = [], []
    for frame in x.double().numpy():
        context.setPositions(frame)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        forces.append(torch.from_numpy(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)))
    found = torch.tensor(energies), torch.stack(forces).float()
    compared = _compared(found, bound.forces()(x), thermal_energy(model.description.temperature))
    return f"{context.getPlatform().getName()} platform, {compared}"


def _sampling() -> str:
    import torch

    _, bound, reference = _shipped()
    first, second = torch.tensor(bound.system.bonds).unbind(1)
    n = 64
    drawn, expected = (
        torch.linalg.vector_norm(q[:, first] - q[:, second], dim=-1)
        for q in (bound.sample(n, itertools.count()), torch.from_numpy(reference.positions))
    )
    error = float(((drawn.mean(0) - expected.mean(0)) / (expected.std(0) / math.sqrt(n))).abs().max())
    return _judged(f"bonds of {n} samples have the reference's mean, off by {error:.1f} standard errors at most", error, _CHANCE)


def _langevin() -> str:
    """Particles that start at rest in the middle of a Gaussian's well spread to its variance; units are the toy's."""
    import torch

    from scoremd.simulation.langevin import LangevinParameters, State, middle_step, thermal_velocities
    from scoremd.systems import load_toy
    from scoremd.toys import GaussianMixturePotential

    toy = load_toy("two-gaussians", packaged("systems"))
    potential = GaussianMixturePotential(toy)
    time_step = 0.05  # of the well's period 2π: longer than the toy's own, to be done sooner
    parameters = LangevinParameters(time_step, toy.friction, toy.thermal_energy, torch.full((1, 1, 1), toy.mass, dtype=torch.float64))
    generator = torch.Generator().manual_seed(1)
    start = potential.means.repeat(5000, 1)[:, None]  # the wells are too far apart to get from one to the other

    def noise() -> "Tensor":
        return torch.randn(start.shape, generator=generator, dtype=torch.float64)

    energies, forces = potential.force(start)
    state = State(start, thermal_velocities(parameters, noise()), forces, energies)
    for _ in range(round(10 / (toy.friction * time_step))):
        state = middle_step(state, noise(), potential.force, parameters)
    ratios = (
        (state.positions - start).square().mean() / potential.variance,
        state.velocities.square().mean() * toy.mass / toy.thermal_energy,
    )
    standard = math.sqrt(2 / start.numel())  # of the variance of as many independent normal numbers
    error = max(abs(float(ratio) - 1) for ratio in ratios) / standard
    said = f"variances of positions {float(ratios[0]):.3f}, of velocities {float(ratios[1]):.3f} of the exact ones"
    return _judged(f"{said}, off by {error:.1f} standard errors at most", error, _CHANCE)
