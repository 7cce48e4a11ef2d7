"""The `scoremd` command."""

import logging
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from typer.exceptions import TyperException

from scoremd.errors import ScoreMDError

if TYPE_CHECKING:
    from scoremd.systems import Family, System, ToySystem

app = typer.Typer(
    name="scoremd",
    help="Molecular dynamics with the forces of a diffusion model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

SystemName = Annotated[str, typer.Argument(help="System, such as ALDP or KS.")]
SystemNames = Annotated[list[str], typer.Argument(help="One or more systems, such as ALDP, KS or LYS-SER.")]
TrajectoryOutput = Annotated[
    Path,
    typer.Option("-o", "--output", help="Trajectory file: .h5, .xtc, .dcd or .pdb; of several systems the folder of a SYSTEM.h5 each."),
]
Model = Annotated[str | None, typer.Option("--model", help="Model name or folder; by default the shipped one.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="The same seed gives the same result.")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Threads of this run.")]
Nanoseconds = Annotated[float, typer.Option("--ns", help="Length of each replica in ns.")]
ReplicaCount = Annotated[int, typer.Option("--replicas", help="Number of replicas.")]
TimeStep = Annotated[float, typer.Option("--time-step", help="fs.")]
Backbone = Annotated[bool, typer.Option("--backbone", help="Add hydrogens of N and missing oxygens by ideal geometry.")]
Interval = Annotated[float, typer.Option("--every", help="ps between saved frames.")]


#: Effective sample sizes below this tell little.
_FEW = 20
#: Columns of a table that does not go to a terminal.
_WIDE = 200


def _console() -> Console:
    """Where tables go, not cut where nobody sees them grow."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of the user end with one line on stderr and code 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ScoreMDError as error:
            _refuse(str(error))
        except KeyboardInterrupt:
            print("scoremd: interrupted; the same command goes on from what is saved", file=sys.stderr)
            raise typer.Exit(130) from None
        except OSError as error:
            _refuse(f"{error.filename or 'file'}: {error.strerror or error}")
        except ValueError as error:
            if "null byte" not in str(error):
                raise
            _refuse("the name of a file holds a null character")

    return wrapped


def _with_topology(path: Path) -> str:
    """A trajectory file, and the one that its topology is in if it holds none."""
    from scoremd.trajectory_files import topology_file

    beside = topology_file(path)
    return f"{path} (topology: {beside})" if path.suffix.lower() != ".pdb" and beside.exists() else str(path)


def _refuse(reason: str) -> NoReturn:
    """End with one line, whatever names of files are in it."""
    print(f"scoremd: {' '.join(reason.split())}", file=sys.stderr)
    raise typer.Exit(2) from None


def _use(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _command() -> str:
    return shlex.join(["scoremd", *sys.argv[1:]])


def _load(system: str, model: str | None) -> tuple[Any, Any]:
    from scoremd.force_field import ForceField, model_for
    from scoremd.systems import load_system

    if model is None:
        found = load_system(system)
        return ForceField.load(model_for(found)), found
    force_field = ForceField.load(model)
    return force_field, force_field.find(system)


def _load_each(systems: list[str], model: str | None) -> list[tuple[Any, Any]]:
    found = [_load(name, model) for name in systems]
    names = [system.name for _, system in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ScoreMDError(f"{twice} is asked for twice")
    return found


def _jobs(systems: list[str], model: str | None, output: Path) -> list[tuple[Any, Any, Path]]:
    """Model, molecule and trajectory file of each system; all is checked before anything is run."""
    from scoremd.files import make_folder
    from scoremd.trajectory_files import FORMATS, check_output

    found = _load_each(systems, model)
    if len(found) == 1:
        return [(*found[0], check_output(output))]
    if output.suffix.lower() in FORMATS:
        raise ScoreMDError(f"{output}: names a file, where several systems need a folder")
    make_folder(output)
    return [(*job, check_output(output / f"{job[1].name}.h5")) for job in found]


@app.callback(invoke_without_command=True)
def _main(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        print(f"scoremd {version('scoremd')}")
        raise typer.Exit


@app.command("list")
@_one_line_errors
def list_command() -> None:
    """Show the models and systems that can be found, and what they reach."""
    from scoremd.force_field import list_models
    from scoremd.systems import list_systems

    console = _console()
    systems = Table(Column("system", no_wrap=True), "title", "also called", "beads", "reference", title="systems")
    for system in list_systems():
        systems.add_row(system.name, system.title, ", ".join(system.aliases), *_size_and_reference(system))
    columns = Column("model", no_wrap=True), "K", "samples", "simulation", "both", "measured on", Column("folder", overflow="fold")
    models = Table(*columns, title="models: excess JS in nats")
    for name, folder in list_models().items():
        models.add_row(name, *_figures(folder), str(folder))
    console.print(systems, models)


def _size_and_reference(system: "System | ToySystem | Family") -> tuple[str, str]:
    from scoremd.systems import Family, ToySystem

    if isinstance(system, Family):
        sizes = sorted({len(member.beads) for member in system.members()})
        return f"{sizes[0]} to {sizes[-1]}", f"of {len(system.with_reference())}: {' '.join(system.with_reference())}"
    if isinstance(system, ToySystem):
        return "1", "exact"
    reference = system.reference_ensemble()
    return str(len(system.beads)), "none" if reference is None else f"{len(reference.positions)} frames"


def _figures(folder: Path) -> tuple[str, str, str, str, str]:
    """Temperature of a model, and what it reaches, as cells of a table."""
    from scoremd.figures import read_figures
    from scoremd.force_field import ForceField

    try:
        found, force_field = read_figures(folder), ForceField.load(folder)
        kelvin = f"{force_field.description.temperature:g}"
        if found is None or found.model != force_field.hash:
            return kelvin, "", "", "", "not measured" if found is None else "not measured since it was changed"
    except ScoreMDError as error:
        return "", "", "", "", f"cannot be read: {error}"
    return kelvin, f"{found.samples:+.4f}", f"{found.simulation:+.4f}", f"{found.between:+.4f}", found.measured


@app.command()
@_one_line_errors
def init(
    trajectories: Annotated[list[Path], typer.Argument(help="Trajectories of one molecule, in any format of mdtraj, or ensembles.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file to write, NAME.yaml; the molecule gets the name.")],
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Of the simulation, K; by default that of a known system of this name.")
    ] = None,
    topology: Annotated[
        Path | None,
        typer.Option(
            "--topology",
            help="File with the atoms: PDB, PRMTOP, GRO, ...; not needed with .h5, .pdb or .gro, nor for the beads of a known system.",
        ),
    ] = None,
    select: Annotated[str, typer.Option("--select", help="Which atoms are beads, in mdtraj's language.")] = "name CA",
    forces: Annotated[list[Path] | None, typer.Option("--forces", help="Forces, .npy or HDF5, once for each trajectory.")] = None,
    force_unit: Annotated[str, typer.Option("--force-unit", help="kJ/mol/nm or kcal/mol/angstrom.")] = "kJ/mol/nm",
    native: Annotated[Path | None, typer.Option("--native", help="File with the native structure, to measure folding by.")] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Take every so many frames.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, max=10**9, help="Training steps of each network.")] = 20000,
) -> None:
    """Write a commented configuration to train a model on trajectories of one's own."""
    from pydantic import ValidationError

    from scoremd.systems import is_known, load_system
    from scoremd.training_template import write_configuration
    from scoremd.trajectory_source import SELF_DESCRIBING, TrajectorySource
    from scoremd.yaml_files import first_fault

    if output.suffix != ".yaml":
        raise ScoreMDError(f"{output}: must end in .yaml; what is before that names the molecule")
    known = load_system(output.stem) if is_known(output.stem) else None
    if temperature is None and known is None:
        raise ScoreMDError(f"{output.stem} is no known system; give the --temperature of its simulation")
    if topology is None and trajectories[0].suffix.lower() in SELF_DESCRIBING:
        topology = trajectories[0]
    if topology is None and known is None:
        raise ScoreMDError(f"{trajectories[0]}: does not say which atoms it has; give --topology")
    try:
        source = TrajectorySource.model_validate(
            {
                "trajectories": trajectories,
                "topology": topology,
                "select": select,
                "temperature": known.temperature if known and temperature is None else temperature,
                "native": native,
                "forces": {"files": forces, "unit": force_unit} if forces else None,
                "stride": stride,
            }
        )
    except ValidationError as error:
        raise ScoreMDError(first_fault(error)) from None
    system, ensemble = write_configuration(output, output.stem, source, steps)
    print(f"{ensemble.n_frames} frames of {len(system.beads)} beads, {len(system.bonds)} bonds between them")
    print(f"{output} written; next: scoremd train {shlex.quote(str(output))}")


@app.command()
@_one_line_errors
def reference(
    molecule: Annotated[str, typer.Argument(help="System, such as ALDP or KS, or a sequence, such as AAAAA or ACE-ALA-NME.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Ensemble to write, .h5.")],
    structure: Annotated[Path | None, typer.Option("--structure", help="PDB file to start from; MOLECULE is then its name.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="K; by default the system's, or 300.")] = None,
    ns: Annotated[float, typer.Option("--ns", help="Length of each replica in ns.")] = 1.0,
    replicas: Annotated[int, typer.Option("--replicas", help="Number of replicas.")] = 6,
    hottest: Annotated[float, typer.Option("--hottest", help="The highest temperature in K.")] = 600.0,
    every: Annotated[float, typer.Option("--every", help="ps between attempts to exchange, and frames.")] = 1.0,
    solvent: Annotated[str, typer.Option("--solvent", help="Implicit solvent, obc2 or gbn2.")] = "obc2",
    time_step: TimeStep = 2.0,
    platform: Annotated[str, typer.Option("--platform", help="OpenMM's.")] = "Reference",
    seed: Seed = 0,
) -> None:
    """Make a reference ensemble by all-atom molecular dynamics: replica exchange in implicit solvent."""
    from scoremd.peptide_builder import build_peptide, residues_of
    from scoremd.reference import ReferenceSettings, read_structure, run_reference
    from scoremd.systems import is_known, load_system

    name, default = molecule, 300.0
    if structure is not None:
        start = read_structure(structure)
    elif is_known(molecule):
        known = load_system(molecule)
        name, default, start = known.name, known.temperature, build_peptide(known.residues)
    else:
        start = build_peptide(residues_of(molecule))
    settings = ReferenceSettings(
        default if temperature is None else temperature, ns, replicas, hottest, every, solvent, time_step, platform=platform, seed=seed
    )
    ensemble, mixing = run_reference(name, start, output, settings)
    print(f"{ensemble.n_frames} frames of {len(ensemble.atoms)} atoms at {ensemble.temperature:g} K written to {output}")
    print(f"replicas changed their temperature after {mixing.acceptance:.0%} of attempts, {mixing.round_trips} round trips in all")


@app.command()
@_one_line_errors
def train(config: Annotated[Path, typer.Argument(help="YAML file; see scoremd.training.config.")]) -> None:
    """Train a model, or go on with an interrupted run."""
    from scoremd.training.config import read_config
    from scoremd.training.processes import is_first_process
    from scoremd.training.trainer import train as run

    settings = read_config(config)
    run(settings)
    if is_first_process():
        print(f"model written to {settings.output}")


@app.command()
@_one_line_errors
def refine(
    model: Annotated[str, typer.Argument(help="Model name or folder.")],
    data: Annotated[Path, typer.Option("--data", help="Ensemble, or folder of ensembles, as for training.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the refined model, and of what it was refined by.")],
    validation: Annotated[Path | None, typer.Option("--validation", help="The same, of molecules to watch.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=2, help="Samples of each molecule.")] = 640,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Replicas of each molecule's simulation.")] = 32,
    ps: Annotated[float, typer.Option("--ps", help="Length of each replica in ps.")] = 20.0,
    seed: Seed = 0,
    threads: Threads = 2,
) -> None:
    """Refine a model by its own samples and simulations of training molecules."""
    from scoremd.force_field import ForceField
    from scoremd.refinement import RefinementSettings
    from scoremd.refinement import refine as run

    _use(threads)
    refined = run(ForceField.load(model), data, validation, output, RefinementSettings(samples, replicas, ps, seed=seed))
    print(f"model {refined.hash} written to {output}")


@app.command()
@_one_line_errors
def calibrate(
    system: SystemName,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the model for this molecule.")],
    samples: Annotated[int, typer.Option("--samples", min=2, help="Samples to agree with.")] = 1024,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Replicas of the simulation that is compared with them.")] = 128,
    ps: Annotated[float, typer.Option("--ps", help="Length of each replica in ps.")] = 20.0,
    seed: Seed = 0,
    model: Model = None,
    threads: Threads = 2,
) -> None:
    """Bring the forces of a molecule nearer to its samples: a model for this molecule, which needs no data."""
    from scoremd.calibration import CalibrationSettings
    from scoremd.calibration import calibrate as run

    _use(threads)
    force_field, found = _load(system, model)
    calibrated = run(force_field, found, CalibrationSettings(samples, replicas, ps, seed), output)
    print(f"model {calibrated.hash} written to {output}")


@app.command()
@_one_line_errors
def sample(
    systems: SystemNames,
    output: TrajectoryOutput,
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 1000,
    backbone: Backbone = False,
    seed: Seed = 0,
    model: Model = None,
    threads: Threads = 2,
) -> None:
    """Draw independent samples of the Boltzmann distribution."""
    from scoremd.backbone import add_backbone
    from scoremd.files import exclusive_output
    from scoremd.trajectory_files import write_samples

    _use(threads)
    for force_field, found, path in _jobs(systems, model, output):
        with exclusive_output(path):
            drawn = force_field.sample(found, n, seed)
            drawn = add_backbone(drawn) if backbone else drawn
            write_samples(path, drawn, origin=force_field.origin_of_samples(found, n, seed))
        print(f"{n} samples written to {_with_topology(path)}")


@app.command()
@_one_line_errors
def reweight(
    system: SystemName,
    output: Annotated[Path, typer.Option("-o", "--output", help="Trajectory file, .h5: samples with log_likelihood, energy, log_ratio.")],
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 1000,
    seed: Seed = 0,
    model: Model = None,
    threads: Threads = 2,
) -> None:
    """Draw samples of known density, of the probability flow, and weigh them by the energy of the forces."""
    from scoremd.analysis.table import weighted_rows
    from scoremd.files import exclusive_output
    from scoremd.trajectory_files import check_output, write_samples

    _use(threads)
    check_output(output, (".h5",))
    force_field, found = _load(system, model)
    with exclusive_output(output):
        drawn = force_field.weighted_samples(found, n, seed)
        columns = {"log_likelihood": drawn.log_likelihood, "energy": drawn.energy, "log_ratio": drawn.log_ratio}
        origin = force_field.origin_of_samples(found, n, seed, of="the probability flow")
        write_samples(output, drawn.trajectory, columns, origin)
    rows = weighted_rows(found, drawn)
    if rows:
        table = Table("population", "reference", "samples", "samples, weighted", title=f"{found.title}, 95 % intervals")
        for row in rows:
            table.add_row(*row)
        _console().print(table)
    size = drawn.effective_sample_size
    print(f"{n} samples written to {output}; effective sample size with their weights {size:.1f} ({size / n:.0%})")
    if size < _FEW:
        print("too few for the populations of the forces: draw more, or do not rely on the weights")


@app.command()
@_one_line_errors
def simulate(
    systems: SystemNames,
    output: TrajectoryOutput,
    ns: Nanoseconds = 0.1,
    replicas: ReplicaCount = 256,
    seed: Seed = 0,
    time_step: TimeStep = 2.0,
    every: Interval = 1.0,
    backbone: Backbone = False,
    model: Model = None,
    threads: Threads = 2,
) -> None:
    """Run Langevin dynamics of many replicas with the network's forces, started from samples."""
    from scoremd.backbone import add_backbone
    from scoremd.files import exclusive_output

    _use(threads)
    for force_field, found, path in _jobs(systems, model, output):
        run = force_field.simulate(found, ns=ns, replicas=replicas, seed=seed, time_step_fs=time_step, frame_interval_ps=every, output=path)
        if backbone:
            with exclusive_output(path):
                replace(run, trajectory=add_backbone(run.trajectory)).write(path)
        print(f"{run.trajectory.n_frames} frames of {replicas} replicas written to {_with_topology(path)}; {len(run.lost)} replicas lost")


@app.command()
@_one_line_errors
def compare(
    system: SystemName,
    samples: Annotated[Path | None, typer.Option(help="Trajectory file of independent samples.")] = None,
    simulation: Annotated[Path | None, typer.Option(help="Trajectory file of a simulation.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Ensemble in our HDF5 format; by default the shipped one.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for comparison.json and report.html.")] = Path("comparison"),
    model: Annotated[str | None, typer.Option("--model", help="Model trained on one's own trajectories, which brings the system.")] = None,
    seed: Seed = 0,
) -> None:
    """Compare samples, simulation and reference, and write the report."""
    from scoremd.analysis.report import write_report
    from scoremd.data import read_ensemble
    from scoremd.emulation import compare_trajectories, provenance
    from scoremd.files import exclusive, make_folder
    from scoremd.force_field import ForceField
    from scoremd.systems import load_system
    from scoremd.trajectory_files import read_trajectory

    force_field = None if model is None else ForceField.load(model)
    found = load_system(system) if force_field is None else force_field.find(system)
    ensemble = found.reference_ensemble() if reference is None else found.beads_of(replace(read_ensemble(reference), forces=None))
    drawn, of_replicas, _ = (None, None, None) if samples is None else read_trajectory(samples, found.topology())
    if of_replicas is not None:
        logging.getLogger("scoremd").warning("%s holds replicas of a simulation, but is taken for independent samples", samples)
    run, replicas, lost = (None, None, None) if simulation is None else read_trajectory(simulation, found.topology())
    if run is not None and replicas is None:
        logging.getLogger("scoremd").warning("%s does not say which replica a frame is of: taken as one trajectory", simulation)
    comparison = compare_trajectories(found, drawn, run, replicas, reference=ensemble, lost=lost, seed=seed)
    with exclusive(make_folder(output)):
        comparison.to_json(output / "comparison.json")
        # that is not what made the files, which HDF5 files alone can tell
        brought = {} if force_field is None else {"molecule as in model": f"{force_field.description.name} {force_field.hash}"}
        write_report(output / "report.html", comparison, provenance(_command(), **{"seed of the comparison": seed}, **brought))
    _show(comparison)
    print(f"report: {output / 'report.html'}")


@app.command()
@_one_line_errors
def emulate(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for all that is made; of several systems one in it each.")],
    systems: Annotated[list[str] | None, typer.Argument(help="Systems, such as ALDP or KS.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All molecules that the model covers.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many of them.")] = None,
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 8000,
    ns: Nanoseconds = 0.02,
    replicas: ReplicaCount = 256,
    seed: Seed = 0,
    time_step: TimeStep = 2.0,
    every: Interval = 1.0,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated", help="Bring the forces nearer to the samples before they simulate, as calibrate does: for long simulations."
        ),
    ] = False,
    model: Model = None,
    threads: Threads = 2,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=1024, help="Divide systems, or the replicas of one, among so many processes, --threads each."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option("--dask", help="Divide systems, or the replicas of one, among the workers of a dask scheduler, tcp://HOST:PORT."),
    ] = None,
) -> None:
    """Sample, simulate, compare with the reference, and write the report."""
    from scoremd.cluster import Workers
    from scoremd.emulation import emulate as run
    from scoremd.force_field import ForceField
    from scoremd.simulation.engine import SimulationSettings
    from scoremd.survey import covered_systems, survey

    if everything == bool(systems):
        raise ScoreMDError("name systems or give --all" + (", not both" if systems else ""))
    if limit is not None and not everything:
        raise ScoreMDError("--limit is for --all")
    if workers is not None and dask is not None:
        raise ScoreMDError("give --workers or --dask, not both")
    _use(threads)
    settings = SimulationSettings(ns, replicas, seed, time_step, frame_interval_ps=every)
    if everything:
        force_field = ForceField.load(model or "dipeptides")
        jobs = [(force_field, found) for found in covered_systems(force_field)[:limit]]
    else:
        jobs = _load_each(systems or [], model)
    many = None if workers is None and dask is None else Workers(dask, workers or 1, threads)
    if len(jobs) == 1:
        result = run(*jobs[0], output, samples=n, settings=settings, command=_command(), calibrated=calibrated, workers=many)
        _show(result.comparison)
        print(f"report: {result.folder / 'report.html'}")
        return
    rows = survey(jobs, output, samples=n, settings=settings, command=_command(), calibrated=calibrated, workers=many)
    shown = [title for title in rows[0] if not title.endswith((", low", ", high")) and any(row[title] != "" for row in rows)]
    table = Table(*shown, title="excess Jensen-Shannon divergence in nats with 95 % intervals, and populations")
    for row in rows:
        table.add_row(*(_cell(row, title) for title in shown))
    _console().print(table)
    print(f"reports: {output}/*/report.html, table: {output / 'summary.csv'}")


@app.command()
def doctor() -> None:
    """Show what is installed, and test with known answers that it works; the exit code is 1 if something is wrong."""
    from scoremd.doctor import examine

    console, wrong = _console(), []
    with console.status("ten seconds, and a minute more where nothing was compiled before"):
        for finding in examine():
            style = {"ok": "green", "skipped": "yellow", "wrong": "bold red"}[finding.status]
            console.print(Text.assemble((f"{finding.status:<9}", style), f"{finding.subject:<26}", finding.said), soft_wrap=True)
            wrong += [finding.subject] if finding.status == "wrong" else []
    if wrong:
        console.print(f"Not as it should be: {', '.join(wrong)}.", soft_wrap=True)
        raise typer.Exit(1)
    console.print("All is well.")


def _cell(row: dict[str, Any], title: str) -> str:
    value, low, high = row[title], row.get(f"{title}, low"), row.get(f"{title}, high")
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return f"{text} [{low:.4f}, {high:.4f}]" if isinstance(low, float) and isinstance(high, float) else text


def _show(comparison: Any) -> None:
    from scoremd.analysis.table import COLUMNS, ENSEMBLES
    from scoremd.analysis.verdict import findings, headline

    console = _console()
    pairs = Table("metric", *[title for _, _, title in COLUMNS])
    for row in comparison.rows():
        pairs.add_row(*row)
    alone = Table("quantity", *ENSEMBLES)
    for row in comparison.ensemble_rows():
        alone.add_row(*row)
    console.print(pairs, alone)
    console.print(headline(comparison))
    if comparison.remark:
        console.print(comparison.remark)
    for finding in findings(comparison):
        console.print(f"- {finding}")


def main() -> None:
    """Entry point; wrong arguments end with one line, too."""
    logging.basicConfig(format="scoremd: %(message)s", level=logging.WARNING)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        message = " ".join(error.format_message().split())
        if message:
            context = getattr(error, "ctx", None)
            command = "scoremd" if context is None else context.command_path
            print(f"scoremd: {message.rstrip('.')} ({command} --help says what there is)", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)
