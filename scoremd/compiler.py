"""The C++ compiler, and where what it makes is kept: `~/.cache/scoremd` (or XDG_CACHE_HOME), under a key of all that went into it."""

import functools
import hashlib
import logging
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from scoremd.errors import ScoreMDError
from scoremd.files import make_folder, replacing

_log = logging.getLogger("scoremd")


@functools.cache
def find_compiler() -> str | None:
    """The compiler that CXX names, or g++; None, after a line of notice, if there is none."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return str(get_cpp_compiler())
    except InvalidCxxCompiler:
        _log.warning("no C++ compiler found (g++, or CXX set to another): running without compilation, many times slower")
        return None


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="scoremd-")


def cache_folder() -> Path:
    """Where libraries are kept.

    Raises
    ------
    ScoreMDError
        If it cannot be made or written to.
    """
    folder = make_folder(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scoremd")
    if not os.access(folder, os.W_OK):
        raise ScoreMDError(f"{folder}: cannot be written to")
    return folder


def _folder() -> Path:
    """`cache_folder`, or one for this process only if that cannot be written to."""
    try:
        return cache_folder()
    except ScoreMDError as error:
        _log.warning("%s: what is compiled is not kept", error)
        return Path(_temporary_folder().name)


def kept(suffix: str, content: Iterable[str | bytes], make: Callable[[Path], None]) -> Path | None:
    """The file that was made of `content` on this kind of processor before, or makes it by `make(path)`.

    None, after a line of notice, if that fails.
    """
    key = hashlib.sha256(repr([platform.machine(), _processor()]).encode())
    for part in content:
        key.update(part if isinstance(part, bytes) else part.encode())
    path = _folder() / f"{key.hexdigest()[:32]}{suffix}"
    if not path.exists():
        try:
            with replacing(path) as temporary:
                make(temporary)
        except ScoreMDError:
            raise
        except Exception as error:  # noqa: BLE001  torch and the compiler raise anything
            _log.warning("compilation failed (%s): running without, many times slower", str(error).strip().partition("\n")[0])
            return None
    return path


def _processor() -> str | None:
    found = re.search(r"^(flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[0]
