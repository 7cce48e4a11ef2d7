"""Families: molecules that have the same layout of beads and differ in their residues, described by one file."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from scoremd.errors import ScoreMDError
from scoremd.system import Agreement, BeadSite, Named, Pair, Quadruple, System, check_indices, standard_residue


class Family(Named):
    """Peptides of a fixed length, one for each sequence of the residues.

    Attributes
    ----------
    temperature
        K.
    residues
        Names of the L-amino acids by their letters.
    beads
        All beads that a member may have.
    lacking
        Names of the beads that a residue does not have, by its name.
    bonds, torsions, collective_variables
        As of a `System`, indices of `beads`; a member has those all of whose beads it has.
    achiral
        Whether a configuration and its mirror image have the same energy.
    agreement
        What is good enough for reports.
    references
        Name of a folder, beside the YAML file, of reference ensembles, each named by its member (KS.h5); None if there is none.
    protocol, licence, origin
        How the ensembles were made, what one may do with them, where they come from.
    """

    kind: Literal["family"]
    temperature: PositiveFloat
    residues: dict[str, str] = Field(min_length=1)
    beads: tuple[BeadSite, ...] = Field(min_length=2)
    lacking: dict[str, tuple[str, ...]]
    bonds: tuple[Pair, ...]
    torsions: tuple[Quadruple, ...]
    collective_variables: dict[str, Quadruple]
    achiral: bool
    agreement: Agreement = Agreement()
    references: str | None = Field(default=None, pattern=r"^[^/\\]+$")
    protocol: str
    licence: str
    origin: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_indices([*self.bonds, *self.torsions, *self.collective_variables.values()], len(self.beads))
        for letter, name in self.residues.items():
            if len(letter) != 1 or not letter.isupper():
                raise ValueError(f"residues must be given by capital letters, not {letter!r}")
            self.member([name] * self.length)  # raises if a bead comes twice or residues are out of order
        unknown = self.lacking.keys() - set(self.residues.values())
        if unknown:
            raise ValueError(f"lacking names {min(unknown)}, which is none of the residues")
        return self

    @property
    def length(self) -> int:
        """Number of residues of each member."""
        return 1 + max(bead.residue for bead in self.beads)

    def member(self, residues: Sequence[str]) -> System:
        """The system with these residues, given by the names that the family has for them."""
        kept = [k for k, bead in enumerate(self.beads) if bead.name not in self.lacking.get(residues[bead.residue], ())]
        index = {slot: k for k, slot in enumerate(kept)}

        def present(group: tuple[int, ...]) -> bool:
            return index.keys() >= set(group)

        def renumbered(groups: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
            return [tuple(index[slot] for slot in group) for group in groups if present(group)]

        variables = {name: group for name, group in self.collective_variables.items() if present(group)}
        letters = {name: letter for letter, name in self.residues.items()}
        name = "".join(letters[residue] for residue in residues)
        system = System.model_validate(
            {
                "kind": "molecule",
                "name": name,
                "aliases": ("-".join(residues),),
                "title": f"{'-'.join(residue.capitalize() for residue in residues)}, {len(kept)} beads",
                "family": self.name,
                "reference": f"{name}.h5" if name in self.with_reference() else None,
                "residues": tuple(residues),
                "beads": [self.beads[k] for k in kept],
                "bonds": renumbered(self.bonds),
                "torsions": renumbered(self.torsions),
                "collective_variables": dict(zip(variables, renumbered(list(variables.values())), strict=True)),
            }
            | {key: getattr(self, key) for key in ("description", "temperature", "achiral", "agreement", "protocol", "licence", "origin")}
        )
        system._folder = self._references  # noqa: SLF001
        return system

    @property
    def _references(self) -> Path:
        return self._folder / (self.references or "")

    def with_reference(self) -> list[str]:
        """Names of the members that have a reference ensemble, sorted."""
        return sorted(path.stem for path in self._references.glob("*.h5")) if self.references else []

    def members(self) -> list["System"]:
        """All of them, in the order of the residues."""
        return [self.member(residues) for residues in itertools.product(self.residues.values(), repeat=self.length)]

    def find(self, name: str) -> System | None:
        """The member of this name: letters (KS) or names of residues (LYS-SER, LYSSER), in any case.

        Returns
        -------
        None if `name` does not look like a sequence of the residues.

        Raises
        ------
        ScoreMDError
            If it does, but is of another length or has a residue that the family does not.
        """
        parts, meant = self._parts(name.upper())
        unknown = next((part for part, residue in zip(parts, meant, strict=True) if residue is None), None)
        if unknown is None and len(parts) == self.length:
            return self.member([residue for residue in meant if residue is not None])
        by_names = "-" in name and len([part for part in meant if part]) > 0
        by_letters = "-" not in name and (unknown is None or len(parts) == self.length)
        if not by_names and not by_letters:
            return None
        letters, names = list(self.residues), list(self.residues.values())
        reason = f"its length is {len(parts)}" if len(parts) != self.length else f"{unknown} is none of its residues"
        example = "".join(letters[: self.length]), "-".join((names * self.length)[: self.length])
        raise ScoreMDError(
            f"{name!r} is no member of {self.name}: {reason}; name {self.length} L-amino acids by letters of "
            f"{''.join(sorted(letters))} ({example[0]}) or by their names ({example[1]})"
        )

    def _parts(self, name: str) -> tuple[list[str], list[str | None]]:
        """The parts of a name in capitals, and the residue that each of them means, if any."""
        known = set(self.residues.values())

        def residues(parts: list[str]) -> list[str | None]:
            return [standard_residue(part) if standard_residue(part) in known else None for part in parts]

        parts = name.split("-") if "-" in name else [name[i : i + 3] for i in range(0, len(name), 3)]
        if "-" in name or all(residues(parts)):
            return parts, residues(parts)
        return list(name), [self.residues.get(letter) for letter in name]
