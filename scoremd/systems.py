"""What is modelled: molecules and toy potentials, described by YAML files that hold data and no logic.

A file describes one system. `kind: molecule` gives a `System`, `kind: toy` a `ToySystem` (`scoremd.system`); the fields of
these classes are the keys of the file, and no other key is allowed. `scoremd.resources.folders` says where files are looked for.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from scoremd import resources
from scoremd.errors import ScoreMDError
from scoremd.resources import Search
from scoremd.system import BeadSite, System, ToySystem

__all__ = ["BeadSite", "System", "ToySystem", "list_systems", "load_system", "load_toy", "read_system"]

_ADAPTER: TypeAdapter[System | ToySystem] = TypeAdapter(Annotated[System | ToySystem, Field(discriminator="kind")])


def list_systems(search: Search = ()) -> list[System | ToySystem]:
    """All systems that can be found, sorted by name; of two with one name the first in the order of folders.

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


def _by_precedence(search: Search) -> dict[str, System | ToySystem]:
    found: dict[str, System | ToySystem] = {}
    for folder in resources.folders("systems", search):
        for path in sorted(folder.glob("*.yaml")):
            system = read_system(path)
            found.setdefault(system.name.lower(), system)
    return found


def load_system(name: str, search: Search = ()) -> System:
    """The molecule of this name or alias, in any case.

    Parameters
    ----------
    name
        Such as "alanine-dipeptide" or "ALDP".
    search
        The user's folder or folders, looked through first.

    Raises
    ------
    ScoreMDError
        If there is none of that name (the message lists those that are known), or it is a toy potential.
    """
    system = _find(name, search)
    if not isinstance(system, System):
        raise ScoreMDError(f"{system.name} is a toy potential, where a molecule is needed")
    return system


def load_toy(name: str, search: Search = ()) -> ToySystem:
    """The toy potential of this name or alias, in any case; otherwise as `load_system`."""
    system = _find(name, search)
    if not isinstance(system, ToySystem):
        raise ScoreMDError(f"{system.name} is a molecule, where a toy potential is needed")
    return system


def _find(name: str, search: Search) -> System | ToySystem:
    by_name = _by_precedence(search)
    known = ", ".join(sorted(system.name for system in by_name.values()))
    for system in list(by_name.values()):
        for alias in system.aliases:
            by_name.setdefault(alias.lower(), system)
    if name.lower() in by_name:
        return by_name[name.lower()]
    close = difflib.get_close_matches(name.lower(), by_name, n=1)
    hint = f"did you mean {by_name[close[0]].name}? " if close else ""
    raise ScoreMDError(f"there is no system {name!r}; {hint}known are {known}")


def read_system(path: str | os.PathLike[str]) -> System | ToySystem:
    """Read one system's YAML file.

    Raises
    ------
    ScoreMDError
        If the file is missing, is not YAML, or lacks, misspells or mistypes a key; the message begins with the path.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        system = _ADAPTER.validate_python(content)
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ScoreMDError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        raise ScoreMDError(f"{path}: not valid YAML ({_one_line(str(error))})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("molecule", "toy"))
        message = _one_line(first["msg"]).removeprefix("Value error, ")
        raise ScoreMDError(f"{path}: {place}: {message}" if place else f"{path}: {message}") from None
    system._folder = path.parent  # noqa: SLF001
    return system


def _one_line(message: str) -> str:
    return " ".join(message.split())
