"""The file of an equilibrium ensemble: reading and writing it.

The format is HDF5, one molecule at one temperature. `frame` is the number of frames, `atom` that of atoms:

==================  ========================  =====================================================================
`positions`         integer (frame, atom, 3)  attribute `unit` = "1e-4 nm"; or float, `unit` = "nm". A frame may lie
                                              and point anywhere: only the molecule's shape has a meaning.
`atom_names`        string (atom,)            as in the Protein Data Bank: N, CA, CB, ...
`elements`          string (atom,)            C, N, O, ...
`residue_names`     string (atom,)            ACE, ALA, ...
`residue_index`     integer (atom,)           of each atom's residue, from 0, never decreasing
`forces`            float (frame, atom, 3)    optional, kJ/mol/nm, from a simulation without constrained bonds
`walker`            integer (frame,)          optional: the independent trajectory that a frame comes from
`potential_energy`  float (frame,)            optional, kJ/mol, of the whole molecule
==================  ========================  =====================================================================

and the attributes `name` (string) and `temperature_K` (float). Other datasets and attributes are ignored. The writer
stores positions as int16 where they fit (molecules up to 6.5 nm), as int32 otherwise, and forces as float16 where they
fit.

The objects that the file holds, and what else one does with them, are in scope here too: `Ensemble`, `Bead`,
`from_mdtraj`, `topology_of` (`scoremd.ensemble`) and `aggregate_forces` (`scoremd.forces`).
"""

import os
from pathlib import Path
from typing import Any

import h5py
import mdtraj
import numpy as np
from numpy.typing import NDArray

from scoremd.ensemble import Bead, Ensemble, from_mdtraj, topology_of
from scoremd.errors import ScoreMDError
from scoremd.files import replacing
from scoremd.forces import aggregate_forces

__all__ = ["Bead", "Ensemble", "aggregate_forces", "from_mdtraj", "read_ensemble", "topology_of", "write_ensemble"]

_RESOLUTION = 1e-4  # nm
_UNITS = {"1e-4 nm": np.float32(_RESOLUTION), "nm": np.float32(1.0)}
_REQUIRED = ("positions", "atom_names", "elements", "residue_names", "residue_index")
_CHUNK = 16384


def read_ensemble(path: str | os.PathLike[str]) -> Ensemble:
    """Read an ensemble from an HDF5 file of the format described at the top of this module.

    Raises
    ------
    ScoreMDError
        If the file is missing, is not HDF5, is truncated, lacks a dataset, has no frames, or holds shapes that
        disagree or values that are not finite. The message begins with the path.
    """
    path = Path(path)
    if path.is_dir():
        raise ScoreMDError(f"{path}: a folder, where an HDF5 file is needed")
    if not path.exists():
        raise ScoreMDError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except ScoreMDError as error:
        raise ScoreMDError(f"{path}: {error}") from None
    except PermissionError:
        raise ScoreMDError(f"{path}: permission to read it is denied") from None
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError, TypeError, ValueError) as error:
        # HDF5 reports a damaged file in any of these, depending on which part of it is read first.
        raise ScoreMDError(f"{path}: not an intact HDF5 file (empty, cut off, or of another format)") from error


def _read(file: h5py.File) -> Ensemble:
    missing = [key for key in _REQUIRED if not isinstance(file.get(key), h5py.Dataset)]
    missing += [key for key in ("name", "temperature_K") if key not in file.attrs]
    if missing:
        raise ScoreMDError(f"not an ensemble of ScoreMD's format (see scoremd.data): it lacks {', '.join(missing)}")
    names, elements, residue_names = (_text(file[key]) for key in ("atom_names", "elements", "residue_names"))
    residues = _integers(file, "residue_index").ravel().tolist()
    if not len(names) == len(elements) == len(residue_names) == len(residues):
        raise ScoreMDError("atom_names, elements, residue_names and residue_index must have one entry per atom each")
    for symbol in elements:
        try:
            mdtraj.element.get_by_symbol(symbol)
        except KeyError:
            raise ScoreMDError(f"elements holds {symbol!r}, which is no chemical element") from None
    atoms = tuple(map(Bead, names, elements, residue_names, residues))
    unit = _decoded(file["positions"].attrs.get("unit", ""))
    if unit not in _UNITS:
        raise ScoreMDError(f"positions have the unit {unit!r}; {' or '.join(map(repr, _UNITS))} is needed")
    temperature = np.asarray(file.attrs["temperature_K"])
    if temperature.dtype.kind not in "iuf" or temperature.size != 1:
        raise ScoreMDError(f"temperature_K must be a number, not {file.attrs['temperature_K']!r}")
    optional = {key: _numbers(file, key) for key in ("forces", "potential_energy") if key in file}
    if "walker" in file:
        optional["walker"] = _integers(file, "walker")
    return Ensemble(
        name=_decoded(file.attrs["name"]),
        temperature=float(temperature.item()),
        atoms=atoms,
        positions=_numbers(file, "positions").astype(np.float32) * _UNITS[unit],
        **optional,
    )


def _numbers(file: h5py.File, key: str) -> NDArray[Any]:
    values = np.asarray(file[key])
    if values.dtype.kind not in "iuf":
        raise ScoreMDError(f"{key} must hold numbers, not {values.dtype}")
    return values


def _integers(file: h5py.File, key: str) -> NDArray[Any]:
    values = _numbers(file, key)
    if values.dtype.kind == "f":
        raise ScoreMDError(f"{key} must hold integers, not {values.dtype}")
    return values


def _text(dataset: h5py.Dataset) -> list[str]:
    return [_decoded(value) for value in np.ravel(dataset[()])]


def _decoded(value: Any) -> str:
    """Text from any of HDF5's ways to store it: fixed length comes as bytes, variable length as str."""
    return value.decode() if isinstance(value, bytes) else str(value)


def write_ensemble(path: str | os.PathLike[str], ensemble: Ensemble) -> None:
    """Write an ensemble to an HDF5 file, compressed; an older file is replaced only when the new one is complete.

    Raises
    ------
    ScoreMDError
        If the folder does not exist or cannot be written, or the path is a folder.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _write(file, ensemble)


def _write(file: h5py.File, ensemble: Ensemble) -> None:
    file.attrs["name"] = ensemble.name
    file.attrs["temperature_K"] = ensemble.temperature
    for key, field in (("atom_names", "name"), ("elements", "element"), ("residue_names", "residue_name")):
        file[key] = np.array([getattr(atom, field).encode() for atom in ensemble.atoms])
    file["residue_index"] = np.array([atom.residue_index for atom in ensemble.atoms], np.int32)
    _compressed(file, "positions", _as_integers(ensemble.positions), "1e-4 nm")
    if ensemble.forces is not None:
        narrow = np.abs(ensemble.forces).max() < np.finfo(np.float16).max
        _compressed(file, "forces", ensemble.forces.astype(np.float16 if narrow else np.float32), "kJ/mol/nm")
    if ensemble.walker is not None:
        narrowest = np.min_scalar_type(-int(np.abs(ensemble.walker).max()) - 1)
        _compressed(file, "walker", ensemble.walker.astype(narrowest))
    if ensemble.potential_energy is not None:
        _compressed(file, "potential_energy", ensemble.potential_energy, "kJ/mol")


def _as_integers(positions: NDArray[np.float32]) -> NDArray[Any]:
    rounded = np.rint(positions.astype(np.float64) / _RESOLUTION)
    largest = np.abs(rounded).max()
    if largest > np.iinfo(np.int32).max:
        raise ScoreMDError(f"positions reach {largest * _RESOLUTION:.3g} nm; no molecule is that large")
    return rounded.astype(np.int16 if largest <= np.iinfo(np.int16).max else np.int32)


def _compressed(file: h5py.File, key: str, values: NDArray[Any], unit: str | None = None) -> None:
    # One coordinate's time series per chunk: neighbouring numbers are alike, which is what the filters live on.
    chunks = (min(len(values), _CHUNK), *(1 for _ in values.shape[1:]))
    dataset = file.create_dataset(key, data=values, chunks=chunks, compression="gzip", compression_opts=9, shuffle=True)
    if unit is not None:
        dataset.attrs["unit"] = unit
