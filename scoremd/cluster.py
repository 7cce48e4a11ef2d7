"""Emulation by many workers: processes of this machine or of others, by dask.distributed.

A worker writes into folders of its own, which all see (a shared disk). What one leaves behind when it is killed is what an interrupted
emulation leaves: the scheduler gives its molecule to another, who goes on from there.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.force_field import ForceField
from scoremd.model_files import networks_from, tensors_of

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
        If dask.distributed is not installed, or the scheduler cannot be reached.
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
            raise ScoreMDError(f"there is no dask scheduler at {workers.address} ({reason})") from None
        yield stack.enter_context(client)


def each(
    workers: Workers, function: Callable[..., dict[str, Any]], jobs: Sequence[tuple[ForceField, Any, Path]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What `function` gives of each job, with the job's number, as they are finished.

    Parameters
    ----------
    workers : who does them
    function : of a model, a molecule and a folder; without side effects but in that folder
    jobs : its arguments

    Raises
    ------
    ScoreMDError
        As `connected` and `function`.
    """
    from distributed import as_completed

    with connected(workers) as client:
        models: dict[str, Any] = {}
        futures = {}
        for number, (force_field, molecule, folder) in enumerate(jobs):
            if force_field.hash not in models:
                content = (force_field.description, tensors_of(force_field.experts), force_field.systems)
                models[force_field.hash] = client.scatter(content, broadcast=True)
            model = models[force_field.hash]
            futures[client.submit(_by_worker, function, model, molecule, folder.resolve(), workers.threads, pure=False)] = number
        for future, result in as_completed(futures, with_results=True):
            yield futures[future], result


def _by_worker(
    function: Callable[..., dict[str, Any]],
    model: tuple[ModelDescription, dict[str, torch.Tensor], tuple[Path, ...]],
    molecule: Any,
    folder: Path,
    threads: int,
) -> dict[str, Any]:
    if not folder.parent.is_dir():
        raise ScoreMDError(f"{folder.parent}: a worker does not see this folder; it must be on a disk that all share")
    torch.set_num_threads(threads)
    description, tensors, systems = model
    force_field = ForceField(description, networks_from(description, tensors, description.name))
    force_field.systems = systems
    return function(force_field, molecule, folder)
