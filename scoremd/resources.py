"""Where systems and force fields are found: the user's folders first, then what is shipped with the package."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from scoremd.errors import ScoreMDError

#: An environment variable of folders, separated as in PATH; each may hold `systems` and `force_fields`, and those systems of their own.
PATH_VARIABLE = "SCOREMD_PATH"

Kind = Literal["systems", "force_fields"]


Search = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def folders(kind: Kind, search: Search = ()) -> list[Path]:
    """The folders to look through, in order of precedence.

    Parameters
    ----------
    kind
        "systems" or "force_fields".
    search
        The user's folder or folders. Each may hold the resources itself or in a folder named like `kind`.

    Returns
    -------
    Existing folders: those of `search`, those of SCOREMD_PATH (`<folder>/<kind>`; for systems then `<folder>/force_fields/*/systems`, those
    of models trained on one's own trajectories), the packaged one.

    Raises
    ------
    ScoreMDError
        If a folder of `search` does not exist.
    """
    given = [search] if isinstance(search, str | os.PathLike) else search
    found: list[Path] = []
    for folder in map(Path, given):
        if not folder.is_dir():
            raise ScoreMDError(f"{folder}: no such folder")
        found += [folder, folder / kind]
    # As in PATH, entries that do not exist are passed over.
    for entry in filter(None, os.environ.get(PATH_VARIABLE, "").split(os.pathsep)):
        found.append(Path(entry) / kind)
        if kind == "systems":
            found += sorted(Path(entry).glob("force_fields/*/systems"))
    found.append(packaged(kind))
    return [folder for folder in found if folder.is_dir()]


def packaged(kind: Kind) -> Path:
    """The folder that is shipped: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    installed = package / f"{kind}_data"
    # The installed name goes first: beside an installed package, site-packages/systems could be anyone's.
    return installed if installed.is_dir() else package.parent / kind
