"""Calibration of the forces of one molecule by what the same model samples: without data, without a reference.

Samples get the weights of basins from large noise, where basins are one and score matching sees them all; forces get them from an energy
at almost none, which remembers of that what training has tied it to. Where the two differ, simulations drift away from the samples. What
they drift to shows in one whose phi and psi are flattened (`scoremd.flattening`), and with a bias c of their sines and cosines F

    S(c) = <c F>_samples + ln <exp(-c F)>_forces + r |c|^2 / 2

is least (Shell, J. Chem. Phys. 129, 144108, 2008) where both agree in F: without r exactly. Neither is right, and r says how much the
forces are believed. S is convex, so that there is one c.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import mdtraj
import torch
from torch import Tensor

from scoremd.analysis.basins import RAMACHANDRAN
from scoremd.collective_variables import phi_psi
from scoremd.errors import ScoreMDError
from scoremd.files import claim, exclusive, make_folder
from scoremd.flattening import least, phi_psi_torsions, series_of_forces, simulate_flattened, simulation_settings, with_bias
from scoremd.force_field import ForceField, check_samples
from scoremd.model_files import CONFIG, WEIGHTS
from scoremd.refinement import relative_entropy
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import System

_log = logging.getLogger("scoremd")

SETTINGS = "calibration.json"
#: r, chosen from 0.003 to 0.4 on the validation peptides.
_BELIEF = 0.1


@dataclass(frozen=True)
class CalibrationSettings:
    """What fixes a calibration.

    Attributes
    ----------
    samples : to agree with
    replicas, ps : of the flattened simulation
    seed : of everything
    """

    samples: int = 1024
    replicas: int = 128
    ps: float = 20.0
    seed: int = 0


def require_calibratable(force_field: ForceField, system: System) -> None:
    """Refuse a model that `calibrate` would refuse for the molecule, by a ScoreMDError."""
    description = force_field.description
    force_field.bind(system)  # refused if it is not covered
    if "calibrated" in description.trained:
        raise ScoreMDError(f"model {description.name} is calibrated already")
    if not phi_psi_torsions(description, system):
        raise ScoreMDError(f"model {description.name} cannot be calibrated for {system.name}: its local term sees no phi and psi")


def calibrate(
    force_field: ForceField,
    system: System,
    settings: CalibrationSettings,
    folder: Path | None = None,
    samples: mdtraj.Trajectory | None = None,
) -> ForceField:
    """The model for one molecule, whose forces have been brought nearer to its samples.

    Parameters
    ----------
    force_field : left as it is
    system : the molecule
    settings : of the calibration
    folder : the result is written there, made if need be; what was finished there before is kept
    samples : of the model, as many and with the seed that the settings say, where they are at hand

    Raises
    ------
    ScoreMDError
        If the model does not cover the molecule, its forces have no local term that sees the molecule's phi and psi or are calibrated
        already, a number makes no sense, the folder cannot be written or holds something else, or replicas blow up.
    """
    require_calibratable(force_field, system)
    run = simulation_settings(settings.replicas, settings.ps, settings.seed)
    run.check()
    check_samples(settings.samples, 2)
    if samples is not None and samples.n_frames != settings.samples:
        raise ScoreMDError(f"{samples.n_frames} samples are given, not the {settings.samples} of the settings")
    if folder is None:
        return _calibrated(force_field, system, settings, run, samples)
    with exclusive(make_folder(folder)):
        text = json.dumps([force_field.hash, system.name, asdict(settings)])
        claim(folder / SETTINGS, text, "a calibration", (CONFIG, WEIGHTS))
        if (folder / CONFIG).exists():  # the last file to be written
            return ForceField.load(folder)
        result = _calibrated(force_field, system, settings, run, samples)
        result.save(folder)
    return result


def _calibrated(
    force_field: ForceField, system: System, settings: CalibrationSettings, run: SimulationSettings, drawn: mdtraj.Trajectory | None
) -> ForceField:
    if drawn is None:
        drawn = force_field.sample(system, settings.samples, settings.seed)
    made = simulate_flattened(force_field, system, drawn, run)
    if made.lost:
        _log.warning("%d of %d replicas blew up; their frames from before count", made.lost, run.replicas)
    samples = force_field.bind(system).scaled(torch.from_numpy(drawn.xyz))
    coefficients = torch.zeros_like(made.coefficients)
    chosen = made.coefficients != 0  # phi and psi
    of_samples, of_forces = (series_of_forces(force_field, system, x)[0][:, chosen] for x in (samples, made.x))
    coefficients[chosen] = bias_between(of_samples, of_forces, made.log_weights)
    description = force_field.description
    note = {"molecule": system.name, "model": force_field.hash, **asdict(settings)}
    weights, there, here = torch.softmax(made.log_weights.double(), 0).numpy(), phi_psi(drawn, system), phi_psi(made.trajectory, system)
    # before the calibration, and the only check of samples and forces by each other that there is after it
    note["populations"] = {
        name: {"samples": round(float(inside(there).mean()), 6), "forces": round(float(weights @ inside(here)), 6)}
        for name, inside in RAMACHANDRAN.items()
    }
    trained = description.trained | {"calibrated": note}
    return with_bias(force_field, coefficients, name=f"{description.name}-{system.name}", systems=(system.name,), trained=trained)


def bias_between(samples: Tensor, made: Tensor, log_weights: Tensor) -> Tensor:
    """The bias c of the module's docstring, (series,).

    Parameters
    ----------
    samples, made : (frame, series) F of samples and of a simulation
    log_weights : (frame,) ln of what the frames of the latter count, up to a constant
    """
    there, here, log_weights = samples.double(), made.double(), log_weights.double()

    def entropy(c: Tensor) -> Tensor:
        return relative_entropy(there @ c, here @ c, log_weights) + 0.5 * _BELIEF * (c @ c)

    # rounded for the reason that `flattening` gives
    return least(entropy, samples.shape[1]).round(decimals=4).to(samples.dtype)
