"""Training by several processes at once: `torchrun --nproc-per-node 2 --no-python scoremd train FILE`.

Every process draws the whole batch, `batch` samples for each process, from the same random numbers, computes the gradient of its own share,
and takes the step of the mean of all gradients. So the run is that of one process with a batch as large, up to rounding. What is written,
the first process writes.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, distributed

from scoremd.errors import ScoreMDError
from scoremd.training.evaluation import Weights
from scoremd.training.step import Batch, StepResult, share_of


def number_of_processes() -> int:
    """How many processes train together; 1 without torchrun."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first_process() -> bool:
    """Whether this is the process that writes: the only one, or torchrun's number 0."""
    return int(os.environ.get("RANK", "0")) == 0 if distributed.is_torchelastic_launched() else True


@contextlib.contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Join the other processes of torchrun, if there are any, while the block lasts; gives the device of this one.

    Parameters
    ----------
    device : "cpu" or "cuda", of which each process of a machine then has its own

    Raises
    ------
    ScoreMDError
        If there are fewer GPUs than processes.
    """
    if not distributed.is_torchelastic_launched():
        yield torch.device(device)
        return
    own = torch.device(device)
    if device == "cuda":
        number = int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise ScoreMDError(f"there are {torch.cuda.device_count()} GPUs, too few for process {number + 1} of this machine")
        own = torch.device("cuda", number)
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield own
    finally:
        distributed.destroy_process_group()


def in_processes(step: Callable[[Weights, Batch], StepResult]) -> Callable[[Weights, Batch], StepResult]:
    """The step as the mean of those of all processes, each of its share of the batch; as it is if there is one process."""
    n = number_of_processes()
    if n == 1:
        return step

    def together(weights: Weights, batch: Batch) -> StepResult:
        gradients, *losses = step(weights, share_of(batch, distributed.get_rank(), n))
        found: list[Tensor] = [*gradients, *losses]
        flat = torch.cat([q.reshape(-1) for q in found])
        distributed.all_reduce(flat)
        means = [part.view_as(q) for part, q in zip((flat / n).split([q.numel() for q in found]), found, strict=True)]
        return StepResult(means[: len(gradients)], *means[len(gradients) :])

    return together
