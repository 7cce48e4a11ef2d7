"""What is modelled: molecules, families of them, and toy potentials, described by YAML files that hold data and no logic.

`kind: molecule` gives a `System`, `kind: toy` a `ToySystem` (`scoremd.system`), `kind: family` a `Family` (`scoremd.family`);
the fields of these classes are the keys of the file, and no other key is allowed. `scoremd.resources.folders` says where
files are looked for.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from scoremd import resources
from scoremd.errors import ScoreMDError
from scoremd.family import Family
from scoremd.resources import Search
from scoremd.system import BeadSite, System, ToySystem
from scoremd.yaml_files import read_yaml

__all__ = ["BeadSite", "Family", "System", "ToySystem", "find_system", "is_known", "list_systems", "load_system", "load_toy", "read_system"]

Described = System | ToySystem | Family

_ADAPTER: TypeAdapter[Described] = TypeAdapter(Annotated[Described, Field(discriminator="kind")])


def list_systems(search: Search = ()) -> list[Described]:
    """All systems and families that can be found, sorted by name; of two with one name the first in the order of folders.

    Parameters
    ----------
    search
        The user's folder or folders, looked through first.

    Raises
    ------
    ScoreMDError
        If a folder is missing, or a file in one is not a valid system.
    """
    systems = _by_precedence(search)
    return [systems[name] for name in sorted(systems)]


def _by_precedence(search: Search) -> dict[str, Described]:
    found: dict[str, Described] = {}
    for folder in resources.folders("systems", search):
        for path in sorted(folder.glob("*.yaml")):
            system = read_system(path)
            found.setdefault(system.name.lower(), system)
    return found


def load_system(name: str, search: Search = ()) -> System:
    """The molecule of this name or alias, or the member of a family with this sequence, in any case.

    Parameters
    ----------
    name
        Such as "alanine-dipeptide", "ALDP", "KS" or "LYS-SER".
    search
        The user's folder or folders, looked through first.

    Raises
    ------
    ScoreMDError
        If there is none of that name (the message lists those that are known), or it is a toy potential or a family.
    """
    return _of_kind(find_system(name, search), System, "molecule")


def is_known(name: str, search: Search = ()) -> bool:
    """Whether `find_system` finds something of this name."""
    try:
        find_system(name, search)
    except ScoreMDError:
        return False
    return True


def load_toy(name: str, search: Search = ()) -> ToySystem:
    """The toy potential of this name or alias, in any case; otherwise as `load_system`."""
    return _of_kind(find_system(name, search), ToySystem, "toy potential")


_Kind = TypeVar("_Kind", System, ToySystem)


def _of_kind(system: Described, kind: type[_Kind], needed: str) -> _Kind:
    if not isinstance(system, kind):
        has = {"molecule": "molecule", "toy": "toy potential", "family": "family of molecules"}[system.kind]
        raise ScoreMDError(f"{system.name} is a {has}, where a {needed} is needed")
    return system


def find_system(name: str, search: Search = ()) -> Described:
    """As `load_system`, of any kind."""
    by_name = _by_precedence(search)
    systems = list(by_name.values())
    known = ", ".join(sorted(system.name for system in systems))
    for system in systems:
        for alias in system.aliases:
            by_name.setdefault(alias.lower(), system)
    if name.lower() in by_name:
        return by_name[name.lower()]
    refusal = None
    for family in systems:
        try:
            if isinstance(family, Family) and (member := family.find(name)) is not None:
                return member
        except ScoreMDError as error:
            refusal = refusal or error
    close = difflib.get_close_matches(name.lower(), by_name, n=1)
    if refusal and not close:
        raise refusal
    hint = f"did you mean {by_name[close[0]].name}? " if close else ""
    raise ScoreMDError(f"there is no system {name!r}; {hint}known are {known}")


def read_system(path: str | os.PathLike[str]) -> Described:
    """Read one system's YAML file.

    Raises
    ------
    ScoreMDError
        If the file is missing, is not YAML, or lacks, misspells or mistypes a key; the message begins with the path.
    """
    path = Path(path)
    try:
        system = _ADAPTER.validate_python(read_yaml(path))
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("molecule", "toy", "family"))
        message = _one_line(first["msg"]).removeprefix("Value error, ")
        raise ScoreMDError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from None
    system._folder = path.parent.resolve()  # noqa: SLF001  workers may have been started in another folder
    return system


def _one_line(message: str) -> str:
    return " ".join(message.split())
