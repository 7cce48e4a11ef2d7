"""Frames of a running simulation on disk, so that a killed run goes on bit for bit.

While it runs, a simulation that writes to FILE keeps a folder FILE.part: `frames`, such as the positions of all replicas, float32, appended
frame by frame, and `state.safetensors`, replaced as a whole after each frame, the one before kept. What `frames` has beyond the state is
cut off on resuming. At the end the frames are written to FILE, and the folder goes.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoremd.errors import ScoreMDError
from scoremd.files import PART
from scoremd.saved_state import read_state, remove_state, save_state
from scoremd.trajectory_files import Block, Origin, check_output, write_trajectory


class AllLostError(ScoreMDError):
    """There is nothing to write."""

    def __init__(self) -> None:
        super().__init__("all replicas were lost before the first frame: the model cannot be simulated at this time step")


class FrameStore:
    """The frames of one simulation.

    Parameters
    ----------
    output : file to be written at the end
    shape : of a frame; (replica, bead, 3) of a simulation
    settings : identifies the run; an interrupted run with other settings is refused
    """

    def __init__(self, output: str | os.PathLike[str], shape: tuple[int, ...], settings: str) -> None:
        self.output, self.shape, self.settings = check_output(output), shape, settings
        self.folder = self.output.with_name(self.output.name + PART)
        self.folder.mkdir(exist_ok=True)
        self.frames_path, self.state_path = self.folder / "frames", self.folder / "state.safetensors"

    def resume(self) -> dict[str, Tensor] | None:
        """State of an interrupted run, None if there is none.

        Raises
        ------
        ScoreMDError
            If the run that was interrupted had other settings, or what is left of it cannot be read.
        """
        saved = read_state(self.state_path)
        if saved is None:
            self.frames_path.write_bytes(b"")
            return None
        state = saved.tensors
        if saved.metadata.get("settings") != self.settings:
            raise ScoreMDError(f"{self.folder}: is of an interrupted run with other settings; remove it or choose another output")
        if self.frames_path.stat().st_size < int(state["frames"]) * self._frame_bytes:
            raise ScoreMDError(f"{self.frames_path}: has fewer frames than were saved; remove {self.folder} to start again")
        os.truncate(self.frames_path, int(state["frames"]) * self._frame_bytes)
        return state

    @property
    def _frame_bytes(self) -> int:
        return 4 * int(np.prod(self.shape))

    def append(self, frame: Tensor, state: dict[str, Tensor]) -> None:
        """Add a frame, then make `state` the state to resume from."""
        with self.frames_path.open("ab") as file:
            file.write(frame.numpy().astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        save_state(self.state_path, {"settings": self.settings}, state)

    def frames(self) -> NDArray[np.float32]:
        """All frames so far, (frame, *shape), read from the disk as they are asked for."""
        return np.memmap(self.frames_path, "<f4", "r").reshape(-1, *self.shape)

    def finish(self, topology: mdtraj.Topology, interval: float, good_frames: NDArray[np.int64], asked: int, origin: Origin) -> Path:
        """Write the output: of each replica the frames before it was lost, of those `asked` for; `interval` between them in ps.

        Raises
        ------
        AllLostError
            If there are none.
        """
        frames = self.frames()

        def blocks() -> Iterator[Block]:
            for replica, n in enumerate(good_frames):
                if n:
                    time = (interval * (1 + np.arange(n))).astype(np.float32)
                    yield np.ascontiguousarray(frames[:n, replica]), time, replica

        if not good_frames.any():
            self.remove()
            raise AllLostError
        path = write_trajectory(self.output, topology, blocks(), (self.shape[0], asked), origin=origin)
        self.remove()
        return path

    def remove(self) -> None:
        """Remove the folder, first what says that there are frames: killed in the midst of this, the next run starts again."""
        remove_state(self.state_path)
        shutil.rmtree(self.folder)


def generator_from(state: Tensor) -> torch.Generator:
    """A generator in a saved state."""
    generator = torch.Generator()
    generator.set_state(state)
    return generator
