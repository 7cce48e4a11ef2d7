"""Molecular dynamics with the forces of a diffusion model.

import scoremd
force_field = scoremd.ForceField.load("alanine-dipeptide")
samples = force_field.sample("ALDP", n=1000, seed=0)              # mdtraj.Trajectory
run = force_field.simulate("ALDP", ns=1.0, replicas=100)          # run.trajectory, run.replica, run.lost
system, topology = force_field.create_openmm("ALDP")              # plain openmm objects
comparison = scoremd.compare(samples, run, system="ALDP")         # against the reference, too
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoremd.emulation import compare_run as compare
    from scoremd.errors import ScoreMDError
    from scoremd.force_field import ForceField
    from scoremd.systems import load_system

__all__ = ["ForceField", "ScoreMDError", "compare", "load_system"]

_HOMES = {
    "ForceField": ("scoremd.force_field", "ForceField"),
    "ScoreMDError": ("scoremd.errors", "ScoreMDError"),
    "compare": ("scoremd.emulation", "compare_run"),
    "load_system": ("scoremd.systems", "load_system"),
}


def __getattr__(name: str) -> Any:
    # torch, mdtraj and e3nn take seconds to import: `scoremd --help` need not wait for them
    if name not in _HOMES:
        raise AttributeError(f"module 'scoremd' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
