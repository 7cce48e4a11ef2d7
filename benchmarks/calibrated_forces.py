"""Calibrated models of molecules, kept in a folder."""

from pathlib import Path

from scoremd.calibration import CalibrationSettings, calibrate
from scoremd.force_field import ForceField
from scoremd.model_files import CONFIG
from scoremd.systems import System


def calibrated_in(folder: Path, force_field: ForceField, system: System, seed: int) -> ForceField:
    """The model calibrated for a molecule, from the folder or made there."""
    own = folder / f"{force_field.hash}-{seed}" / system.name
    if not (own / CONFIG).exists():
        calibrate(force_field, system, CalibrationSettings(seed=seed), own)
    return ForceField.load(own)
