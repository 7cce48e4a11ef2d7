"""Configuration of a training run: the YAML file that `scoremd train` reads."""

import os
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from scoremd.description import check_time_ranges
from scoremd.diffusion.schedule import SCHEDULES, SMALLEST_TIME
from scoremd.errors import ScoreMDError
from scoremd.nn.energy import NetworkConfig
from scoremd.trajectory_source import TrajectorySource
from scoremd.yaml_files import first_fault, read_yaml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FokkerPlanckConfig(_Section):
    """The consistency term.

    Attributes
    ----------
    weight : alpha, its factor in the loss; 0 turns it off
    fraction : number of its samples in units of the batch, in addition to the denoising samples; each costs D + 3 energies and scores
    log_snr : range of ln(alpha / sigma) that its samples are spread over; 3 is a noise of 0.05, beyond which the network is frozen
    """

    weight: float = Field(0.0, ge=0)
    fraction: float = Field(0.05, gt=0, le=1)
    log_snr: tuple[float, float] = (-1.0, 3.0)


class TrainingConfig(_Section):
    """Everything that fixes a training run.

    Attributes
    ----------
    name, title : of the model
    system : name of the system, or of a family of systems, of which one model then learns all members; with trajectories as data the name
        that the molecule gets
    data : ensemble in the format of `scoremd.data`, for a family a folder of them, one for each member that is to be learned, named by its
        sequence (KS.h5); or trajectories of any molecule, see `scoremd.trajectory_source.TrajectorySource`. Relative to the configuration
        file
    output : folder of the trained model; relative to the configuration file
    start : folder of a model whose weights training starts from, each expert from that which is asked at the noisiest of its times; what it
        lacks begins untrained. Relative to the configuration file
    length_scale : 1/nm, chosen so that scaled coordinates have a variance of order one
    use_forces : mix the force labels into the target
    time_ranges : times at which each expert is asked, the least noisy first; experts are trained one after the other, `steps` each
    training_ranges : times at which each is trained, if they are to be wider: consistency carries the weights of basins from large
        noise, where denoising knows them, down to small noise, so the least noisy expert must have seen all of that way
    focus : mean and standard deviation, in half log signal-to-noise ratio, of half of the noise levels that are trained on; the other half
        is log-uniform in time. None for half uniform, half log-uniform in time
    dual_weight : factor of the loss of the energy's derivative by the noise level (dual score matching), which carries the weights of
        basins from large to small noise, for the least noisy expert; 1 weighs all targets by their variance, 0 turns it off
    posterior_weight : where noise is large (half log signal-to-noise ratio below 2), aim at the score of the molecule's whole ensemble,
        noised and turned at random, and let that count by this factor, since it has little variance (see `scoremd.diffusion.posterior`);
        0 turns it off
    networks : numbers, from 1, of the experts that are trained; the others stay those of `start`. None for all
    optimizer : "adam", or "soap", which is Adam in the eigenbases of Shampoo's preconditioners and begins more slowly
    steps, batch, learning_rate : one warm-up and cosine decay
    average : the weights that are kept are an exponential average over about 1 / (1 - average) steps
    seed, threads : of the run
    device : where it runs; "cuda" is the first GPU, whose sums are not in a fixed order: runs there do not repeat bit for bit
    checkpoint_every : steps
    """

    name: str
    title: str
    system: str
    data: Annotated[
        Annotated[Path, Tag("file")] | Annotated[TrajectorySource, Tag("trajectories")],
        Discriminator(lambda value: "trajectories" if isinstance(value, dict | TrajectorySource) else "file"),
    ]
    output: Path
    start: Path | None = None
    length_scale: float = Field(6.0, ge=1e-3, le=1e3)
    schedule: Literal["vp", "ve"] = "vp"
    use_forces: bool = True
    network: NetworkConfig = NetworkConfig()
    fokker_planck: FokkerPlanckConfig = FokkerPlanckConfig()
    time_ranges: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    training_ranges: tuple[tuple[float, float], ...] | None = None
    focus: tuple[float, Annotated[float, Field(gt=0)]] | None = None
    dual_weight: float = Field(0.0, ge=0)
    posterior_weight: float = Field(0.0, ge=0)
    networks: tuple[int, ...] | None = None
    optimizer: Literal["adam", "soap"] = "adam"
    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(256, ge=2, le=10**6)
    learning_rate: float = Field(2e-3, gt=0)
    average: float = Field(0.999, gt=0, lt=1)
    seed: int = Field(0, ge=0, le=2**32 - 1)
    threads: int = Field(1, ge=1, le=1024)
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_every: int = Field(1000, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_time_ranges(self.time_ranges)
        if self.fokker_planck.log_snr[0] >= self.fokker_planck.log_snr[1]:
            raise ValueError(f"fokker_planck.log_snr must rise, not {list(self.fokker_planck.log_snr)}")
        for trained, asked in zip_longest(self.times_of_training, self.time_ranges):
            if not trained or not asked or not 0 <= trained[0] <= asked[0] < asked[1] <= trained[1] <= 1:
                raise ValueError(f"training_ranges must hold the time_ranges one by one, not {list(self.times_of_training)}")
        if self.networks is not None:
            if not self.networks or not set(self.networks) <= set(range(1, len(self.time_ranges) + 1)):
                raise ValueError(f"networks must be numbers from 1 to {len(self.time_ranges)}, not {list(self.networks)}")
            if self.start is None:
                raise ValueError("networks needs start, the model that the others are taken from")
        low, high = self.fokker_planck.log_snr
        ends = SCHEDULES[self.schedule]().log_snr(torch.tensor(self.times_of_training[0], dtype=torch.float64).clamp(min=SMALLEST_TIME))
        if self.fokker_planck.weight > 0 and not ends[1] <= low < high <= ends[0]:
            allowed = f"from {float(ends[1]):.2f} to {float(ends[0]):.2f}, where the least noisy network is trained"
            raise ValueError(f"fokker_planck.log_snr must lie within its range, {allowed}; it is {[low, high]}")
        if self.network.achiral:
            raise ValueError("network.achiral is a property of the system, and set there")
        return self

    def trains(self, number: int) -> bool:
        """Whether expert `number`, from 0, is trained."""
        return self.networks is None or number + 1 in self.networks

    @property
    def times_of_training(self) -> tuple[tuple[float, float], ...]:
        """Range of times that each expert is trained on."""
        return self.training_ranges or self.time_ranges


def read_config(path: str | os.PathLike[str]) -> TrainingConfig:
    """Read a training configuration; relative paths in it are taken from its folder.

    Raises
    ------
    ScoreMDError
        If the file is missing, is not YAML, or a key is missing, unknown or of a wrong value.
    """
    path = Path(path)
    try:
        config = TrainingConfig.model_validate(read_yaml(path))
    except OSError as error:
        raise ScoreMDError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise ScoreMDError(f"{path}: {first_fault(error)}") from None
    folder = path.resolve().parent
    paths = {name: folder / path for name in ("output", "start") if (path := getattr(config, name)) is not None}
    data = config.data.below(folder) if isinstance(config.data, TrajectorySource) else folder / config.data
    return config.model_copy(update=paths | {"data": data})
