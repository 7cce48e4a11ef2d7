"""The C++ compiler, and where what it makes is kept: `~/.cache/scoremd` (or XDG_CACHE_HOME), under a key of all that went into it."""

import functools
import hashlib
import logging
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from scoremd.errors import ScoreMDError
from scoremd.files import make_folder, replacing, write_text

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
    key = hashlib.sha256(repr([platform.machine(), _processor(), _compiler_version()]).encode())
    for part in content:
        key.update(part if isinstance(part, bytes) else part.encode())
    path = _folder() / f"{key.hexdigest()[:32]}{suffix}"
    if not _is_whole(path):
        try:
            with replacing(path) as temporary:
                make(temporary)
                write_text(_digest_of(path), _sha256(temporary))
        except ScoreMDError:
            raise
        except Exception as error:  # noqa: BLE001  torch and the compiler raise anything
            _log.warning("compilation failed (%s): running without, many times slower", str(error).strip().partition("\n")[0])
            return None
    return path


def _digest_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether a library is there as it was made: the process would end without a word if half of one were loaded."""
    try:
        return _digest_of(path).read_text(encoding="utf-8") == _sha256(path)
    except (OSError, UnicodeDecodeError):
        return False


@functools.cache
def _compiler_version() -> str:
    compiler = find_compiler()
    return "" if compiler is None else subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603


def _processor() -> str | None:
    found = re.search(r"^(flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[0]
