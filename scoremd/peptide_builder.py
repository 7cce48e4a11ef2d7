"""Starting structures of peptides by their sequence: all atoms, extended, by ideal geometry."""

import io
from collections.abc import Sequence

from openmm import app, unit

from scoremd.errors import ScoreMDError

#: The twenty L-amino acids by their letters.
AMINO_ACIDS = {
    "A": "ALA",
    "R": "ARG",
    "N": "ASN",
    "D": "ASP",
    "C": "CYS",
    "Q": "GLN",
    "E": "GLU",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "L": "LEU",
    "K": "LYS",
    "M": "MET",
    "F": "PHE",
    "P": "PRO",
    "S": "SER",
    "T": "THR",
    "W": "TRP",
    "Y": "TYR",
    "V": "VAL",
}
_EXTENDED = {"phi": -120.0, "psi": 140.0}
_PROLINE_PHI = -70.0


def residues_of(sequence: str) -> list[str]:
    """Names of the residues of a sequence, such as AAAAA or ACE-ALA-NME.

    Raises
    ------
    ScoreMDError
        If a letter or name is none of the amino acids, or ACE and NME are not the first and the last.
    """
    text = sequence.upper()
    names = text.split("-") if "-" in text else [AMINO_ACIDS.get(letter, letter) for letter in text]
    inner = names[names[:1] == ["ACE"] : len(names) - (names[-1:] == ["NME"])]
    wrong = [name for name in inner if name not in AMINO_ACIDS.values()]
    if not inner or wrong:
        what = f"{wrong[0]} is none of them" if wrong else "there is none"
        raise ScoreMDError(
            f"sequence {sequence!r} must be of L-amino acids by letters (AAAAA) or by names (ACE-ALA-NME), caps at its ends: {what}"
        )
    return names


def build_peptide(residues: Sequence[str]) -> tuple[app.Topology, unit.Quantity]:
    """Heavy atoms of a peptide with bonds, angles and torsions of an extended chain.

    Parameters
    ----------
    residues : names as `residues_of` gives them

    Returns
    -------
    topology and positions, without hydrogens

    Raises
    ------
    ScoreMDError
        If PeptideBuilder is not installed, or a residue is none of those.
    """
    try:
        import PeptideBuilder
        from Bio.PDB import PDBIO
        from PeptideBuilder import Geometry
    except ImportError:
        raise ScoreMDError("building a peptide needs PeptideBuilder: pip install PeptideBuilder, or give a structure") from None
    letters = {name: letter for letter, name in AMINO_ACIDS.items()}
    strange = next((name for name in residues if name not in letters and name not in _CAPS), None)
    if strange is not None:
        raise ScoreMDError(f"residue {strange} is none of the twenty amino acids and no cap, so it cannot be built; give a structure")
    # caps are cut from alanines, whose backbone they share
    chain = None
    for name in residues:
        geometry = Geometry.geometry(letters.get(name, "A"))
        geometry.phi = _PROLINE_PHI if name == "PRO" else _EXTENDED["phi"]
        geometry.psi_im1 = _EXTENDED["psi"]
        chain = PeptideBuilder.initialize_res(geometry) if chain is None else PeptideBuilder.add_residue(chain, geometry)
    if residues[-1] != "NME":
        PeptideBuilder.add_terminal_OXT(chain)
    file, text = PDBIO(), io.StringIO()
    file.set_structure(chain)
    file.save(text)
    lines = (_capped(line, residues) for line in text.getvalue().splitlines())
    pdb = app.PDBFile(io.StringIO("\n".join(filter(None, lines)) + "\n"))
    return pdb.topology, pdb.positions


#: Atoms of an alanine that a cap keeps, and what they are called in it.
_CAPS = {"ACE": {"CA": "CH3", "C": "C", "O": "O"}, "NME": {"N": "N", "CA": "C"}}


def _capped(line: str, residues: Sequence[str]) -> str | None:
    """A line of a PDB file with the alanine that stands for a cap made one; None if its atom is not the cap's."""
    if not line.startswith("ATOM"):
        return line
    name, atom = residues[int(line[22:26]) - 1], line[12:16].strip()
    if name not in _CAPS:
        return line
    kept = _CAPS[name].get(atom)
    return None if kept is None else f"{line[:12]} {kept:<3}{line[16]}{name}{line[20:]}"
