"""A commented training configuration for trajectories of one's own: what `scoremd init` writes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from scoremd.analysis.fold import NativeStructure
from scoremd.data import Ensemble
from scoremd.errors import ScoreMDError
from scoremd.files import write_text
from scoremd.nn.energy import ALL_PAIRS
from scoremd.system import System
from scoremd.trajectory_source import TrajectorySource, own_molecule

_TEMPLATE = """\
# scoremd train {file}
# {frames} frames of {beads} beads in {residues} residues{with_forces}; all keys: scoremd/training/config.py
name: {name}
title: {title}
# the molecule's name in other commands: scoremd emulate {plain} --model {output} -o report
system: {name}
data:
  # any formats that mdtraj reads; each file counts as an independent trajectory
  trajectories: {trajectories}
{topology}  # which atoms are beads, in mdtraj's language: name CA; not element H; backbone
  select: {select}
  # K
  temperature: {temperature}
{native}  # every so many frames are taken
  stride: {stride}
{forces}  # masses of the beads in Da, if they are not to be those of the atoms
  # masses: [12.0, ...]
# folder of the trained model; it needs none of these files any more
output: {output}
{use_forces}# 1/nm: what positions are multiplied by, for a variance of about one
length_scale: {length_scale}
network: {{scalars: 16, vectors: 8, layers: 2, radial_basis: 12, radial_width: 32, torsion_width: 128{cutoff}}}
# the first network gives the forces, and samples below t = 0.006; the second samples above
time_ranges: [[0.0, 0.006], [0.006, 1.0]]
training_ranges: [[0.0, 0.3], [0.006, 1.0]]
# carries the weights of basins from large noise, where they are known, to small noise; 0 turns it off
dual_weight: 1.0
# of each network
steps: {steps}
batch: 256
learning_rate: 0.003
seed: 0
threads: 2
"""
#: Frames below which nothing can be learned.
_FEWEST = 20
_LARGEST_SCALE = 6.0
#: nm, how far beads see each other in a first layer, of chains of more than `ALL_PAIRS` beads.
REACH = 1.5
_FORCES = """\
  # of a simulation at the same temperature: (frame, atom, 3), .npy or HDF5 with a dataset forces, one file for each trajectory
  forces:
    files: {files}
    unit: {unit}
"""
_TOPOLOGY = """\
  topology: {topology}
"""
_NO_TOPOLOGY = """\
  # topology: top.pdb  # not needed: the molecule is a known system, and the files hold its beads alone
"""
_NATIVE = """\
  # the native structure, of all atoms or of the beads: RMSD, native contacts and the folded state are then in the report
  native: {native}
"""
_NO_NATIVE = """\
  # native: native.pdb  # a structure that folding is to be measured by
"""
_NO_FORCES = """\
  # forces: {files: [forces.npy], unit: kJ/mol/nm}  # or kcal/mol/angstrom
"""


def write_configuration(path: Path, name: str, source: TrajectorySource, steps: int) -> tuple[System, Ensemble]:
    """Read trajectories to see that they can be trained on, and write a configuration that does so.

    Parameters
    ----------
    path : of the YAML file, which must not exist
    name : of molecule and model
    source : with paths as the user gives them
    steps : of each network

    Returns
    -------
    the molecule and its ensemble

    Raises
    ------
    ScoreMDError
        If the file exists, cannot be written, there are too few frames, the native structure has no contacts, or as `own_molecule`.
    """
    if path.exists():
        raise ScoreMDError(f"{path}: exists already; choose another name or remove it")
    system, ensemble = own_molecule(name, source)
    if ensemble.n_frames < _FEWEST:
        raise ScoreMDError(f"{ensemble.n_frames} frames are too few to learn from: {_FEWEST} are the least, thousands are wanted")
    NativeStructure.of(system)  # refused now, not after training
    folder = path.resolve().parent

    def shown(paths: Sequence[Path]) -> str:
        return _inline([os.path.relpath(p, folder) for p in paths])

    forces, scale = _NO_FORCES, _length_scale(ensemble)
    if source.forces is not None:
        forces = _FORCES.format(files=shown(source.forces.files), unit=source.forces.unit)
    text = _TEMPLATE.format(
        file=path.name,
        frames=ensemble.n_frames,
        beads=len(system.beads),
        residues=len(system.residues),
        with_forces=" with forces" if source.forces is not None else "",
        name=_inline(name),
        plain=name,
        use_forces="use_forces: false\n" if source.forces is None else "",
        title=_inline(system.title),
        output=_inline(f"{name}-model"),
        trajectories=shown(source.trajectories),
        topology=_NO_TOPOLOGY if source.topology is None else _TOPOLOGY.format(topology=shown([source.topology])[1:-1]),
        select=_inline(source.select),
        temperature=source.temperature,
        stride=source.stride,
        forces=forces,
        native=_NO_NATIVE if source.native is None else _NATIVE.format(native=shown([source.native])[1:-1]),
        cutoff=_cutoff(system, scale),
        length_scale=scale,
        steps=steps,
    )
    write_text(path, text)
    return system, ensemble


def _length_scale(ensemble: Ensemble) -> float:
    """1/nm: positions of variance one, but of small molecules no larger than where all that is told from noise was tried."""
    return min(_LARGEST_SCALE, round(1 / float(np.sqrt(ensemble.positions.var(axis=(0, 1)).mean())), 2))


def _cutoff(system: System, scale: float) -> str:
    """For chains so long that only near pairs are computed: how far beads see each other, as networks see it."""
    return f", cutoff: {round(scale * REACH, 2)}" if len(system.beads) > ALL_PAIRS else ""


def _inline(value: str | list[str]) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
