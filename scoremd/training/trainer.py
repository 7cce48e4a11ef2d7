"""The training loop: optimiser, averaged weights, log, checkpoints."""

import contextlib
import csv
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoremd.capture import captured
from scoremd.description import ModelDescription
from scoremd.errors import ScoreMDError
from scoremd.files import exclusive, make_folder, replacing
from scoremd.model_files import CONFIG, WEIGHTS, load_model, model_hash, save_model
from scoremd.nn.energy import MoleculeEnergy
from scoremd.parts import single_threaded
from scoremd.progress import progress
from scoremd.system import Quadruple
from scoremd.systems import Family, System, ToySystem, find_system
from scoremd.training.checkpoint import RunState
from scoremd.training.config import TrainingConfig
from scoremd.training.dataset import TrainingSet, ensemble_files, read_ensembles, training_set
from scoremd.training.evaluation import AsWritten, CannotCompileError, Evaluation, InLanes, Weights
from scoremd.training.processes import in_processes, is_first_process, joined, number_of_processes
from scoremd.training.step import Batch, BatchSource, StepResult, can_be_shared, in_halves, make_step, share_of
from scoremd.trajectory_source import TrajectorySource, own_molecule, read_source, write_own_system

LOG = "metrics.csv"
#: So many torsions at most are one group of the local term; of more, so many in a row are.
_TOGETHER, _RUN = 8, 3
_WARM_UP, _FINAL_RATE, _GRADIENT_NORM = 0.02, 0.01, 5.0
#: Left out of the settings where they are not used: those of runs from before there was one are what they were.
_LATER_OPTIONS = ("focus", "dual_weight", "posterior_weight", "networks", "optimizer")
_COLUMNS = ("expert", "step", "loss_uniform", "loss_logarithmic", "dual", "fokker_planck", "learning_rate")


def learning_rate_factor(fraction: float) -> float:
    """Linear warm-up, then cosine decay to a hundredth; `fraction` of the run that is done."""
    if fraction < _WARM_UP:
        return fraction / _WARM_UP
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * (fraction - _WARM_UP) / (1 - _WARM_UP)))


def describe(config: TrainingConfig, system: System | Family) -> ModelDescription:
    """The description of the model that a configuration trains, for one system or for all members of a family."""
    residues = system.residues if isinstance(system, System) else system.residues.values()
    network = config.network.model_copy(update={"achiral": system.achiral})
    return ModelDescription(
        name=config.name,
        title=config.title,
        systems=(system.name,),
        temperature=system.temperature,
        length_scale=config.length_scale,
        schedule=config.schedule,
        slots=system.beads,
        residue_names=tuple(dict.fromkeys(residues)),
        torsions=_torsion_groups(system.torsions),
        network=network,
        time_ranges=config.time_ranges,
    )


def _torsion_groups(torsions: tuple[Quadruple, ...]) -> tuple[tuple[Quadruple, ...], ...]:
    """All torsions in reach of each other: those of a small molecule together, those of a chain in runs that overlap."""
    if len(torsions) <= _TOGETHER:
        return (torsions,) if torsions else ()
    return tuple(torsions[k : k + _RUN] for k in range(len(torsions) - _RUN + 1))


class Expert:
    """Training of one network on one range of times."""

    def __init__(self, config: TrainingConfig, description: ModelDescription, data: TrainingSet, number: int) -> None:
        self.config, self.number = config, number
        # far apart: another run's first expert must not be this run's second
        seed = 100 * config.seed + number
        torch.manual_seed(seed)
        device = data.positions.device
        self.network = description.make_network(data.pair_statistics.cpu())
        if config.start is not None:
            _start_from(self.network, number, config.start, description)
        self.network.to(device)
        # Consistency at small times is what simulation needs; noisier experts only sample.
        self.dual_weight = config.dual_weight if number == 0 else 0.0
        consistent = config.fokker_planck.weight > 0 and number == 0
        generator = torch.Generator(device).manual_seed(seed)
        self.source = BatchSource(
            data,
            description.make_schedule(),
            config.times_of_training[number],
            config.focus,
            config.batch * number_of_processes(),
            config.posterior_weight,
            config.fokker_planck if consistent else None,
            generator,
        )
        self.state = RunState(dict(self.network.named_parameters()), config.optimizer, config.learning_rate, generator)
        self.step_function = self._make_step(AsWritten(self.network))

    def _make_step(self, evaluation: Evaluation) -> Callable[[Weights, Batch], StepResult]:
        return make_step(
            evaluation,
            dual_weight=self.dual_weight,
            consistency_weight=self.config.fokker_planck.weight,
        )

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Current weights, by name."""
        return {name: p.detach() for name, p in self.state.parameters.items()}

    def compile(self) -> None:
        """Compile the step, or record it, on a CUDA device; the random numbers that this draws are put back."""
        before = self.source.generator.get_state()
        batch, n = self.source.draw(), number_of_processes()
        if not can_be_shared(batch, n):
            raise ScoreMDError(
                f"batch must be even, and fraction times it whole, to be shared by {n} processes with the Fokker-Planck term"
            )
        batch = share_of(batch, 0, n)
        if batch.denoising.positions.is_cuda:
            if self.network.near_only:
                return  # the number of pairs changes from step to step, which a recording cannot
            self.step_function = captured(self.step_function, self.parameters, batch)
        else:
            with contextlib.suppress(CannotCompileError):  # the reason was logged
                step = self._make_step(InLanes(self.network, batch.molecule))
                step(self.parameters, batch)  # compiles what it needs, which threads could not at the same time
                self.step_function = in_halves(step) if self.config.threads > 1 else step
        self.source.generator.set_state(before)

    def advance(self) -> Tensor:
        """One optimiser step; its losses, see `StepResult`, and the norm of its gradient, (5,)."""
        state, config = self.state, self.config
        result = in_processes(self.step_function)(self.parameters, self.source.draw())
        for p, gradient in zip(state.parameters.values(), result.gradients, strict=True):
            p.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(state.parameters.values(), _GRADIENT_NORM)
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor((state.step + 1) / config.steps)
        with single_threaded():  # what several threads find rounds in other ways
            state.optimizer.step()
        keep = min(config.average, (1 + state.step) / (10 + state.step))
        torch._foreach_lerp_(list(state.average.values()), list(self.parameters.values()), 1 - keep)
        state.step += 1
        return torch.stack([*result[1:], norm])

    def averaged_network(self) -> MoleculeEnergy:
        """The network with the averaged weights, in the computer's own memory."""
        self.network.load_state_dict(self.state.average, strict=False)
        return self.network.cpu()


def _start_from(network: MoleculeEnergy, number: int, folder: Path, description: ModelDescription) -> None:
    """Give expert `number` the weights and statistics of that of a model which is asked at the noisiest of its own times."""
    other, experts = load_model(folder)
    if (other.slots, other.residue_names, other.torsions) != (description.slots, description.residue_names, description.torsions):
        raise ScoreMDError(f"{folder}: has other beads, residues or torsions than the model that is to start from it")
    noisiest = description.time_ranges[number][1]
    asked = next(k for k, (_, high) in enumerate(other.time_ranges) if noisiest <= high)
    tensors, own = experts[asked].state_dict(), network.state_dict()
    wrong = [name for name, q in tensors.items() if name not in own or own[name].shape != q.shape]
    if wrong:
        raise ScoreMDError(f"{folder}: its network has other sizes ({wrong[0]})")
    network.load_state_dict(tensors, strict=False)


def train(config: TrainingConfig) -> None:
    """Train a model, or go on with an interrupted run, and save it to `config.output`.

    The folder gets, besides the model, `metrics.csv`. While the run lasts its checkpoints lie there too; a run that was killed and
    started again gives the same weights, bit for bit, as one that was not.

    Raises
    ------
    ScoreMDError
        If the data do not fit the system, the output cannot be written or holds a run with other settings.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ScoreMDError("device: cuda is asked for, but torch finds no CUDA device")
    if config.start is not None:
        load_model(config.start)  # refused before anything is made
    with joined(config.device) as device:
        description, data = _material(config)
        data = data.to(device)
        make_folder(config.output)
        torch.set_num_threads(config.threads)
        with exclusive(config.output) if is_first_process() else contextlib.nullcontext():
            _train(config, description, data)


def _material(config: TrainingConfig) -> tuple[ModelDescription, TrainingSet]:
    """What is to be trained, and on what."""
    if isinstance(config.data, TrajectorySource):
        system, ensemble = own_molecule(config.system, _used(config))
        description = describe(config, system)
        return description, training_set([(system, ensemble)], description, use_forces=config.use_forces)
    found = find_system(config.system)
    if isinstance(found, ToySystem):
        raise ScoreMDError(f"{found.name} is a toy potential, where a molecule or a family of molecules is needed")
    description = describe(config, found)
    return description, training_set(read_ensembles(found, config.data), description, use_forces=config.use_forces)


def _train(config: TrainingConfig, description: ModelDescription, data: TrainingSet) -> None:
    settings = _settings(config)
    if (config.output / CONFIG).exists():
        done, _ = load_model(config.output)
        if done.trained.get("configuration") == settings:
            _remove_checkpoints(config)
            _write_own_system(config)
            return
        raise ScoreMDError(f"{config.output}: holds a model trained with other settings or data; choose another output or remove it")
    if not list(config.output.glob("checkpoint-*.safetensors")):
        log = config.output / LOG
        foreign = WEIGHTS if (config.output / WEIGHTS).exists() else LOG if log.exists() and not _is_ours(log) else None
        if foreign:
            raise ScoreMDError(f"{config.output}: holds a {foreign} of unknown origin; choose another output or move it away")
    experts = [Expert(config, description, data, k) for k in range(len(config.time_ranges))]
    for expert in experts:
        if config.trains(expert.number):
            _run(expert, config)
    if not is_first_process():
        return
    trained = {"configuration": settings, "frames": len(data.positions), "torch": torch.__version__}
    trained_description = description.model_copy(update={"trained": trained})
    _write_own_system(config)
    save_model(config.output, trained_description, [expert.averaged_network() for expert in experts])
    _remove_checkpoints(config)


def _write_own_system(config: TrainingConfig) -> None:
    if isinstance(config.data, TrajectorySource) and is_first_process():
        write_own_system(config.output / "systems", *own_molecule(config.system, _used(config)))


def _used(config: TrainingConfig) -> TrajectorySource:
    """Trajectories, without their forces where those are not wanted."""
    assert isinstance(config.data, TrajectorySource)  # as the caller makes sure
    return config.data if config.use_forces else config.data.model_copy(update={"forces": None})


def averaged_so_far(config: TrainingConfig) -> tuple[ModelDescription, list[MoleculeEnergy], int]:
    """A run's model as its last checkpoints have it, finished or not, and the number of steps of all experts together.

    Raises
    ------
    ScoreMDError
        As `train`; where a checkpoint is missing, too.
    """
    if (config.output / CONFIG).exists():
        return *load_model(config.output), config.steps * len(config.networks or config.time_ranges)
    description, data = _material(config)
    settings, networks, steps = json.dumps(_settings(config)), [], 0
    for k in range(len(config.time_ranges)):
        expert = Expert(config, description, data, k)
        if config.trains(k) and not expert.state.restore(config.output / f"checkpoint-{k}.safetensors", settings):
            raise ScoreMDError(f"{config.output}: has no checkpoint of network {k + 1} yet")
        networks.append(expert.averaged_network())
        steps += expert.state.step
    return description, networks, steps


def _remove_checkpoints(config: TrainingConfig) -> None:
    for path in config.output.glob("checkpoint-*.safetensors*"):
        path.unlink()


def _settings(config: TrainingConfig) -> dict[str, Any]:
    """What fixes a run bit for bit: configuration, a hash of the data, the version of torch."""
    fixed = config.model_dump(mode="json", exclude={"output", "data", "start", "checkpoint_every"})
    for key in _LATER_OPTIONS:
        if fixed[key] == TrainingConfig.model_fields[key].default:
            del fixed[key]
    if number_of_processes() > 1:
        fixed["processes"] = number_of_processes()
    start = {} if config.start is None else {"start": model_hash(*load_model(config.start))}
    return (
        fixed
        | start
        | {
            "data_sha256": _digest(_used(config) if isinstance(config.data, TrajectorySource) else config.data, config.system),
            "torch": torch.__version__,
        }
    )


def _digest(data: Path | TrajectorySource, name: str = "") -> str:
    """SHA-256 of a file, of those of a folder's files, or of what trajectories of a molecule of that name come down to."""
    if isinstance(data, TrajectorySource):
        system, ensemble = read_source(name, data)
        # a native structure is for reports, and may be added later
        digest = hashlib.sha256(system.model_dump_json(exclude={"native"}).encode() + ensemble.positions.tobytes())
        digest.update(b"" if ensemble.forces is None else ensemble.forces.tobytes())
        return digest.hexdigest()
    if data.is_dir():
        return hashlib.sha256("".join(map(_digest, ensemble_files(data))).encode()).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(expert: Expert, config: TrainingConfig) -> None:
    checkpoint = config.output / f"checkpoint-{expert.number}.safetensors"
    settings = json.dumps(_settings(config))
    expert.state.restore(checkpoint, settings)
    if expert.state.step == config.steps:
        return
    log = config.output / LOG
    if is_first_process():
        _truncate_log(log, expert.number, expert.state.step)
    expert.compile()
    window: list[Tensor] = []
    title = f"{config.name}, expert {expert.number + 1} of {len(config.time_ranges)}"
    with progress(title, config.steps, "steps", expert.state.step, shown=is_first_process()) as bar:
        while expert.state.step < config.steps:
            window.append(expert.advance())
            bar.advance(1)
            step = expert.state.step
            if step % config.checkpoint_every == 0 or step == config.steps:
                # not asked at each step: a GPU would have to be waited for
                means = torch.stack(window).mean(0).tolist()
                if not all(map(math.isfinite, means)):
                    raise ScoreMDError(f"a gradient was not finite in the {len(window)} steps before {step}: lower the learning rate")
                window.clear()
                if is_first_process():
                    # the log first: what it has beyond the checkpoint is cut off on resuming
                    _append_log(log, expert, means[:-1])
                    expert.state.save(checkpoint, settings)


def _is_ours(log: Path) -> bool:
    with log.open("rb") as file:
        return file.readline().strip() == ",".join(_COLUMNS).encode()


def _append_log(path: Path, expert: Expert, means: list[float]) -> None:
    rate = expert.state.optimizer.param_groups[0]["lr"]
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([expert.number, expert.state.step, *(f"{m:.6g}" for m in means), f"{rate:.6g}"])
        file.flush()
        os.fsync(file.fileno())


def _truncate_log(path: Path, number: int, step: int) -> None:
    """Keep the rows of earlier experts and those of this one up to `step`."""
    rows: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [r for r in list(csv.reader(file))[1:] if len(r) == len(_COLUMNS)]
    kept = [r for r in rows if int(r[0]) < number or (int(r[0]) == number and int(r[1]) <= step)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_COLUMNS, *kept])
