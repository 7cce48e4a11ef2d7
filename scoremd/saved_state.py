"""States that interrupted work goes on from: safetensors, replaced as a whole, the one before kept."""

import logging
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scoremd.errors import ScoreMDError
from scoremd.files import replacing

_log = logging.getLogger("scoremd")


class SavedState(NamedTuple):
    """What was saved, and where it was found."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def save_state(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Write to `path`, moving what was there to `path` + ".previous"."""
    with replacing(path) as temporary:
        save_file({name: q.contiguous() for name, q in tensors.items()}, temporary, metadata)
        if path.exists():
            path.replace(_previous(path))


def read_state(path: Path) -> SavedState | None:
    """The newest state that can be read, with a warning of a damaged one; None if nothing was saved.

    Raises
    ------
    ScoreMDError
        If something was saved, and nothing of it can be read.
    """
    damaged = ""
    for candidate in (path, _previous(path)):
        try:
            with safe_open(candidate, "pt") as file:
                found = SavedState(candidate, file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except FileNotFoundError:
            continue
        except (OSError, SafetensorError) as error:
            damaged = damaged or f"{candidate}: is damaged ({error})"
            continue
        if damaged:
            _log.warning("%s; going on from the state before it", damaged)
        return found
    if damaged:
        raise ScoreMDError(f"{damaged}; remove it to start again")
    return None


def remove_state(path: Path) -> None:
    """Remove what was saved, the newest first: killed in between, work goes on from the one before."""
    path.unlink(missing_ok=True)
    _previous(path).unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")
