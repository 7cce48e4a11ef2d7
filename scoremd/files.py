"""Writing files so that nothing is ever half written, and by one process at a time."""

import errno
import fcntl
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from scoremd.errors import ScoreMDError

#: This computer, in names of temporary files: folders may be shared with others, whose processes cannot be asked for.
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
#: Ending of the folder beside a file that a process is about to write.
PART = ".part"
#: Bytes that a disk must have room for not to count as full.
_PROBE = 65536


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` (same ending) that takes its place when the block ends without an exception.

    Raises
    ------
    ScoreMDError
        If the path is a folder, or its folder is missing or cannot be written to, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise ScoreMDError(f"{path}: is a folder, where a file is to be written")
    if not path.parent.is_dir():
        raise ScoreMDError(f"{path}: there is no folder {path.parent}")
    try:
        _remove_leftovers(path)
        prefix = f".{path.stem}-{_HOST}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be written ({error.strerror})") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are private; a result is as public as any new file
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or the name could outlive a power cut without the content
        temporary.replace(path)
    except ScoreMDError:
        raise
    except Exception as error:
        reason = _why_not_written(temporary, error)
        if reason is None:
            raise
        raise ScoreMDError(f"{path}: cannot be written ({reason})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _why_not_written(path: Path, error: Exception) -> str | None:
    """Why a file cannot be written, or None if the error is of another kind: libraries tell of a full disk in ways of their own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    full = os.strerror(errno.ENOSPC)
    if full in str(error):
        return full
    try:
        with path.open("ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found.strerror
    return str(error) if isinstance(error, OSError) else None


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files that were to become `path`, of processes of this computer that were killed."""
    ours = re.compile(rf"\.{re.escape(path.stem)}-{_HOST}-(\d{{1,9}})-\w{{8}}{re.escape(path.suffix)}")
    for left in path.parent.iterdir():
        if (found := ours.fullmatch(left.name)) and not _is_running(int(found[1])):
            with suppress(OSError):  # of another user
                left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder that becomes `path`, which must not exist, when the block ends without an exception.

    Raises
    ------
    ScoreMDError
        If the path exists, or the folder that it is to be in is missing or cannot be written to, or the disk is full.
    """
    path = Path(path)
    if path.exists():
        raise ScoreMDError(f"{path}: exists already; choose another folder or remove it")
    if not path.parent.is_dir():
        raise ScoreMDError(f"{path}: there is no folder {path.parent}")
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file as UTF-8, whole or not at all; one that is there is replaced.

    Raises
    ------
    ScoreMDError
        As `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def make_folder(path: Path) -> Path:
    """The folder at `path`, made if need be.

    Raises
    ------
    ScoreMDError
        If it is a file, or cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise ScoreMDError(f"{path}: is a file, where a folder is to be written")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be made a folder ({error.strerror})") from None
    return path


def claim(note: Path, text: str, what: str, results: Sequence[str]) -> None:
    """Note in a file what its folder is for; refuse a folder that is for something else.

    Parameters
    ----------
    note : the file
    text : says what the folder is for, settings included
    what : of that kind, for the message
    results : names of files that may lie there only beside such a note

    Raises
    ------
    ScoreMDError
        If another note is there, or a result without a note.
    """
    folder = note.parent
    foreign = [name for name in results if (folder / name).exists()]
    if foreign and not note.exists():
        raise ScoreMDError(f"{folder}: holds a {foreign[0]} of unknown origin; choose another folder or move it away")
    if note.exists() and note.read_text(encoding="utf-8") != text:
        raise ScoreMDError(f"{folder}: holds {what} with other settings; choose another folder or remove it")
    write_text(note, text)


@contextmanager
def exclusive(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder against other processes that ask for it in the same way; it is free again when the block or the process ends.

    Raises
    ------
    ScoreMDError
        If another process holds it.
    """
    handle = _held(folder)
    try:
        yield
    finally:
        os.close(handle)


def _held(folder: str | os.PathLike[str]) -> int:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ScoreMDError(f"{folder}: another process is writing there; wait for it or choose another output") from None
    return handle


@contextmanager
def exclusive_output(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file that is to be written against other processes, by the folder FILE.part beside it, which goes when the block ends.

    Raises
    ------
    ScoreMDError
        If another process holds it, or the folder cannot be made.
    """
    path = Path(path)
    folder = path.with_name(path.name + PART)
    handle = None
    while handle is None:
        with suppress(FileNotFoundError):  # the process that held it has just removed it
            handle = _held(make_folder(folder))
        if handle is not None and not _is_open(handle, folder):
            os.close(handle)
            handle = None
    try:
        yield
    finally:
        with suppress(OSError):  # what an interrupted simulation left in it stays
            folder.rmdir()
        os.close(handle)


def _is_open(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False
