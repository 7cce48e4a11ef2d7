"""Writing a text file so that it is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from scoremd.errors import ScoreMDError


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a file through a temporary one beside it.

    Parameters
    ----------
    path
        File to write; one that is there is replaced.
    text
        Its content, written as UTF-8.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ScoreMDError
        If the path is a folder, or its folder is missing or cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise ScoreMDError(f"{path} is a folder; the name of a file is needed")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ScoreMDError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp's files are private; a report is as public as any new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise ScoreMDError(f"{path} cannot be written: {error.strerror}") from error
    return path
