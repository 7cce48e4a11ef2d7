"""Emulation by many workers: processes of this machine or of others, by dask.distributed.

A worker writes into folders of its own, which all see (a shared disk). What one leaves behind when it is killed is what an interrupted
emulation leaves: the scheduler gives its molecule to another, who goes on from there.
"""

import contextlib
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField

if TYPE_CHECKING:
    from distributed import Client

#: Seconds that a scheduler is waited for.
_TIMEOUT = 10


@dataclass(frozen=True)
class Workers:
    """Where to emulate.

    Attributes
    ----------
    address : of a scheduler that runs, such as tcp://node1:8786, or None
    processes : otherwise so many workers of this machine
    threads : of each worker
    """

    address: str | None = None
    processes: int = 1
    threads: int = 1


@contextlib.contextmanager
def connected(workers: Workers) -> Iterator["Client"]:
    """A client of the scheduler, or of a cluster of this machine that lasts as long as the block.

    Raises
    ------
    ScoreMDError
        If dask.distributed is not installed, or the scheduler cannot be reached or has no workers.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ScoreMDError("several workers need dask.distributed: pip install distributed") from None
    with contextlib.ExitStack() as stack:
        if workers.address is None:
            logging.getLogger("distributed").setLevel(logging.ERROR)
            where = stack.enter_context(LocalCluster(n_workers=workers.processes, threads_per_worker=1, dashboard_address=None))
        else:
            where = workers.address
        try:
            client = Client(where, timeout=_TIMEOUT)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ScoreMDError(f"there is no dask scheduler at {workers.address!r} ({reason})") from None
        stack.enter_context(client)
        try:
            client.wait_for_workers(1, timeout=_TIMEOUT)
        except TimeoutError:
            raise ScoreMDError(f"the dask scheduler at {workers.address!r} has no workers") from None
        yield client


def each(
    workers: Workers, function: Callable[..., dict[str, Any]], jobs: Sequence[tuple[ForceField, Any, Path]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What `function` gives of each job, with the job's number, as they are finished.

    Parameters
    ----------
    workers : who does them
    function : of a model, a molecule and a folder; without side effects but in that folder
    jobs : its arguments; all folders are in one, which all workers see

    Raises
    ------
    ScoreMDError
        As `connected` and `function`; or if a molecule kills its worker time and again.
    """
    with connected(workers) as client, tempfile.TemporaryDirectory(prefix=".models-", dir=jobs[0][2].resolve().parent) as shared:
        # workers read models from the disk: what is only in the memory of one that is killed would be lost
        from distributed import CancelledError, KilledWorker, as_completed

        futures = {}
        for number, (force_field, molecule, folder) in enumerate(jobs):
            model = Path(shared) / force_field.hash
            if not model.exists():
                force_field.save(model)
            arguments = (model, force_field.systems, molecule, folder.resolve(), workers.threads)
            futures[client.submit(_by_worker, function, *arguments, pure=False)] = number
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except (KilledWorker, CancelledError):
                raise ScoreMDError(f"{jobs[futures[future]][2].name}: its workers were killed again and again; is memory short?") from None


def _by_worker(
    function: Callable[..., dict[str, Any]], model: Path, systems: tuple[Path, ...], molecule: Any, folder: Path, threads: int
) -> dict[str, Any]:
    if not model.is_dir():
        raise ScoreMDError(f"{folder.parent}: a worker does not see this folder; it must be on a disk that all share")
    torch.set_num_threads(threads)
    force_field = _loaded(model)
    force_field.systems = systems
    return function(force_field, molecule, folder)


@functools.lru_cache(maxsize=2)
def _loaded(model: Path) -> ForceField:
    return ForceField.load(model)
