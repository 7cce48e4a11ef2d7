"""Malformed inputs, more than two hundred: each is refused in one line with code 2, harms no file, leaves none, and executes nothing."""

import io
import pickle
import shutil
import sys
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from scoremd import bound_model
from scoremd.cli import main
from scoremd.data import write_ensemble
from scoremd.trajectory_source import read_source
from tests.models import SMALL, alanine_dipeptide, small_ensemble

DATA = Path(__file__).parents[1] / "data"
FEW = settings(
    derandomize=True,
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SHORT = ("--ns", 4e-5, "--replicas", 16, "--time-step", 0.5, "--every", 0.005)


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of files that are as they should be."""
    folder = tmp_path_factory.mktemp("whole")
    alanine_dipeptide().save(folder / "model")
    data = small_ensemble(DATA).select(slice(60))
    write_ensemble(folder / "ensemble.h5", data)
    trajectory = data.to_mdtraj()
    trajectory[0].save_pdb(str(folder / "top.pdb"))
    trajectory.save_dcd(str(folder / "run.dcd"))
    np.save(folder / "forces.npy", data.forces)
    beads = alanine_dipeptide().find("ALDP").beads_of(data).to_mdtraj()
    beads.save_hdf5(str(folder / "samples.h5"))
    beads.save_pdb(str(folder / "samples.pdb"))
    beads.save_xtc(str(folder / "samples.xtc"))
    values = {"name": "mine", "title": "Mine", "system": "ALDP", "data": "ensemble.h5", "output": "run", "network": SMALL}
    (folder / "train.yaml").write_text(yaml.safe_dump(values | {"steps": 2, "batch": 16}))
    return folder


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy of it that a test may damage, in which commands run."""
    shutil.copytree(whole, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(bound_model, "SAMPLING_CALLS", 3)
    monkeypatch.setattr(bound_model, "SAMPLING_BATCH", 16)
    read_source.cache_clear()
    return tmp_path / "here"


#: Commands that read what `folder` holds.
SAMPLE = ("sample", "ALDP", "-n", 3, "--model", "./model", "-o", "new.h5")
SIMULATE = ("simulate", "ALDP", *SHORT, "--model", "./model", "-o", "new.h5")
EMULATE = ("emulate", "ALDP", "-n", 16, *SHORT, "--model", "./model", "-o", "new")
REWEIGHT = ("reweight", "ALDP", "-n", 3, "--model", "./model", "-o", "new.h5")
COMPARE = ("compare", "ALDP", "--samples", "samples.h5", "-o", "new")
REFERENCE = ("compare", "ALDP", "--samples", "samples.pdb", "--reference", "ensemble.h5", "-o", "new")
TRAIN = ("train", "train.yaml")
MAKE_REFERENCE = ("reference", "ALDP", "--ns", 4e-5, "--every", 0.01, "--replicas", 2, "-o", "new.h5")
INIT = ("init", "run.dcd", "--topology", "top.pdb", "--temperature", 300, "--select", "not element O", "-o", "new.yaml")
REFINE = ("refine", "./model", "--data", "ensemble.h5", "-o", "new")
CALIBRATE = ("calibrate", "ALDP", "--model", "./model", "-o", "new")


def run(*arguments):
    """Exit code and stderr of `scoremd`, in this process."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["scoremd", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", error)
        with pytest.raises(SystemExit) as exit_:
            main()
    return exit_.value.code or 0, error.getvalue()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refuses(folder, *arguments):
    """The command ends with one line and code 2; no file is changed, and none is new. What it said."""
    before = contents(folder)
    code, said = run(*arguments)
    assert code == 2, said
    assert said.startswith("scoremd: "), said
    assert said.count("\n") == 1, said
    assert len(said) < 1500
    after = contents(folder)
    assert after.keys() == before.keys()
    assert after == before
    return said


@pytest.mark.parametrize(
    "command", [SAMPLE, SIMULATE, EMULATE, REWEIGHT, COMPARE, REFERENCE, TRAIN, INIT, MAKE_REFERENCE], ids=lambda c: c[0]
)
def test_all_commands_work_with_what_is_as_it_should_be(folder, command, monkeypatch):
    """Or refusals would say nothing."""
    monkeypatch.setattr(bound_model, "FLOW_INTERVALS", 2)
    if command is EMULATE:
        command = (*command, "--ns", 2e-4)
    code, said = run(*command)
    assert code == 0, said


# Models.

WEIGHTS, CONFIG = "model/model.safetensors", "model/config.yaml"


@FEW
@given(st.data())
def test_weights_that_are_cut_off_or_random(folder, data):
    path = folder / WEIGHTS
    good = path.read_bytes()
    bad = data.draw(st.one_of(st.binary(max_size=200), st.integers(0, len(good) - 1).map(lambda n: good[:n])))
    path.write_bytes(bad)
    try:
        assert "model.safetensors" in refuses(folder, *SAMPLE)
    finally:
        path.write_bytes(good)


@FEW
@given(st.data())
def test_bits_of_a_header_of_weights_that_are_flipped(folder, data):
    """What is flipped is length, names, shapes or offsets; weights themselves may have any value that is finite."""
    path = folder / WEIGHTS
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    at, bit = data.draw(st.integers(0, len(good[:header].rstrip()) - 1)), data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[at] ^= 1 << bit
    path.write_bytes(bad)
    try:
        if run(*SAMPLE)[0] == 0:  # a letter that does not count
            (folder / "new.h5").unlink()
        else:
            assert "model.safetensors" in refuses(folder, *SAMPLE)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("command", [SAMPLE, SIMULATE, EMULATE, REWEIGHT, REFINE], ids=lambda c: c[0])
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "model/pytorch_model.bin"])
@pytest.mark.parametrize("protocol", [0, 4])
def test_pickles_in_the_place_of_models_are_not_loaded(folder, tmp_path, command, name, protocol):
    trap = pickle.dumps(Trap(tmp_path / "sprung"), protocol)
    (folder / name).write_bytes(trap)
    if name.endswith(".bin"):
        (folder / WEIGHTS).unlink()
    refuses(folder, *command)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap).close()
    assert (tmp_path / "sprung").exists()  # it would have been


DESCRIPTIONS = [
    "",
    "null",
    "[]",
    "3",
    "text",
    "\ufeff{}",
    "a: &a [*a]",
    "!!python/object/apply:os.system ['touch sprung']",
    "!!python/object/new:os.system ['touch sprung']",
    "!!python/name:os.system",
    "name: !!python/object/apply:builtins.open [sprung, w]",
    "{name: a, name: b}",
    "\x00",
    "a: 1\n\tb: 2",
    "- " * 3000,
    "{" * 3000,
    "&a " * 50,
    "*a",
    "a: !!binary ////x",
    "? {a: 1} : 2",
    "? [a]\n: 1",
    "? &a [*a]\n: 1",
    "1: 2",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "a: 1e999",
    "%YAML 9.9\n---\na: 1",
    "--- a\n--- b",
]


@pytest.mark.parametrize("text", DESCRIPTIONS)
@pytest.mark.parametrize(("name", "command"), [(CONFIG, SAMPLE), ("train.yaml", TRAIN)], ids=["model", "train"])
def test_yaml_of_other_kinds(folder, name, command, text):
    (folder / name).write_text(text, encoding="utf-8")
    assert name in refuses(folder, *command)
    assert not (folder / "sprung").exists()


def test_anchors_that_multiply(folder):
    """Ten billion strings, if they were written out."""
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10))
    for name, command in ((CONFIG, SAMPLE), ("train.yaml", TRAIN)):
        good = (folder / name).read_text()
        (folder / name).write_text(text + good)
        refuses(folder, *command)
        (folder / name).write_text(text + good.replace("title: ", "title: *a9 #"))
        refuses(folder, *command)
        (folder / name).write_text(good)


VALUES = (None, "text", -1, float("nan"), float("inf"), 10**30, [], {}, [[]], True, "\u202e\n", [float("nan")] * 2)


def changed(path, key, value):
    found = yaml.safe_load(path.read_text())
    at = found
    *parents, last = key.split(".")
    for one in parents:
        at = at.setdefault(one, {})
    at[last] = value
    path.write_text(yaml.safe_dump(found))


@FEW
@given(
    key=st.sampled_from(["temperature", "length_scale", "slots", "residue_names", "torsions", "network", "time_ranges", "network.scalars"]),
    value=st.sampled_from(VALUES),
)
def test_values_of_descriptions(folder, key, value):
    assume((key, value) != ("length_scale", True))  # YAML's true is one
    good = (folder / CONFIG).read_text()
    changed(folder / CONFIG, key, value)
    try:
        refuses(folder, *SAMPLE)
    finally:
        (folder / CONFIG).write_text(good)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("speed", 1),
        ("steps", 0),
        ("steps", 1.5),
        ("steps", "many"),
        ("batch", 1),
        ("batch", float("nan")),
        ("learning_rate", -1e-3),
        ("learning_rate", float("inf")),
        ("average", 1),
        ("seed", -1),
        ("seed", 2**62),
        ("seed", 10**30),
        ("optimizer", "sgd"),
        ("device", "tpu"),
        ("schedule", "cosine"),
        ("system", "none-such"),
        ("system", ""),
        ("system", "mueller-brown"),
        ("system", ["ALDP"]),
        ("data", "none.h5"),
        ("data", "top.pdb"),
        ("data", "."),
        ("data", "a\0b"),
        ("data", {}),
        ("data", {"trajectories": [], "topology": "top.pdb", "temperature": 300}),
        ("data", {"trajectories": ["run.dcd"], "topology": "none.pdb", "temperature": 300}),
        ("data", {"trajectories": ["run.dcd"], "topology": "top.pdb", "temperature": float("nan")}),
        ("data", {"trajectories": ["run.dcd"], "topology": "top.pdb", "temperature": 300, "select": "name ="}),
        ("data", {"trajectories": ["run.dcd"], "topology": "top.pdb", "temperature": 300, "select": "__import__('os').system('touch x')"}),
        ("output", "train.yaml"),
        ("output", "a\0b"),
        ("start", "none"),
        ("start", "."),
        ("network", {"layers": 10**30}),
        ("time_ranges", [[0, 0.5]]),
        ("time_ranges", [[0, float("nan")], [float("nan"), 1]]),
        ("training_ranges", [[0.5, 1]]),
        ("networks", [2]),
        ("focus", [0, -1]),
        ("fokker_planck", {"weight": 1, "log_snr": [3, -1]}),
        ("network", {"scalars": -1}),
        ("network", {"achiral": True}),
        ("threads", 0),
        ("checkpoint_every", 0),
        ("length_scale", 0),
        ("length_scale", 1e300),
        ("length_scale", 1e-300),
        ("threads", 10**30),
        ("name", None),
        ("name", 3),
    ],
)
def test_values_of_training_configurations(folder, key, value):
    changed(folder / "train.yaml", key, value)
    refuses(folder, *TRAIN)


# HDF5.


def edited(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def put(key, value):
    def change(file):
        if key in file:
            del file[key]
        file[key] = value

    return change


def take(key):
    return lambda file: file.__delitem__(key)


def attribute(key, name, value):
    return lambda file: file[key].attrs.__setitem__(name, value)


def linked(key, link):
    def change(file):
        del file[key]
        file[key] = link

    return change


ENSEMBLES = {
    "positions of two axes": put("positions", np.zeros((60, 3))),
    "positions that are text": put("positions", [b"a", b"b"]),
    "positions that are complex": put("positions", np.zeros((60, 10, 3), complex)),
    "positions that are NaN": put("positions", np.full((60, 10, 3), np.nan)),
    "no positions": take("positions"),
    "a scalar": put("positions", 3.0),
    "no frames": put("positions", np.zeros((0, 10, 3))),
    "forces of other frames": put("forces", np.zeros((59, 10, 3))),
    "forces that are infinite": put("forces", np.full((60, 10, 3), np.inf)),
    "names of fewer atoms": put("atom_names", [b"C"]),
    "names that are not UTF-8": put("atom_names", np.array([b"\xff\xfe"] * 10)),
    "elements that are none": put("elements", [b"Qq"] * 10),
    "residues that fall": put("residue_index", np.arange(10)[::-1]),
    "residues that are negative": put("residue_index", np.arange(10) - 20),
    "residues that are huge": put("residue_index", np.full(10, 2**62)),
    "residues with a fraction": put("residue_index", np.linspace(0, 2, 10)),
    "walkers of other frames": put("walker", np.zeros(3, int)),
    "walkers that are text": put("walker", [b"a"] * 60),
    "no temperature": lambda file: file.attrs.__delitem__("temperature_K"),
    "a temperature that is NaN": attribute("/", "temperature_K", np.nan),
    "a temperature that is text": attribute("/", "temperature_K", "warm"),
    "another temperature": attribute("/", "temperature_K", 310.0),
    "a link to nowhere": linked("positions", h5py.SoftLink("/nowhere")),
    "a link to a file that is not there": linked("positions", h5py.ExternalLink("none.h5", "/positions")),
    "a link to itself": linked("positions", h5py.SoftLink("/positions")),
}


@pytest.mark.parametrize("what", ENSEMBLES)
def test_ensembles_that_hold_other_things(folder, what):
    edited(folder / "ensemble.h5", ENSEMBLES[what])
    for command in (REFERENCE, TRAIN, REFINE):
        if what.startswith("walkers") or not (what.startswith("forces") and command is not TRAIN):
            refuses(folder, *command)


TRAJECTORIES = {
    "no coordinates": take("coordinates"),
    "no topology": take("topology"),
    "coordinates of other atoms": put("coordinates", np.zeros((60, 4, 3))),
    "coordinates of two axes": put("coordinates", np.zeros((60, 15))),
    "coordinates that are NaN": put("coordinates", np.full((60, 5, 3), np.nan)),
    "coordinates that are text": put("coordinates", [b"a"]),
    "no frames": put("coordinates", np.zeros((0, 5, 3))),
    "times of other frames": put("time", np.zeros(3)),
    "a topology that is no JSON": put("topology", [b"{"]),
    "a topology that is a number": put("topology", 3),
    "a topology of nothing": put("topology", [b'{"chains": []}']),
    "a topology of a list": put("topology", [b"[]"]),
    "a topology that is deep": put("topology", [b"[" * 100000]),
    "replicas that are negative": put("replica", np.full(60, -1)),
    "replicas of other frames": put("replica", np.zeros(3, int)),
}


@pytest.mark.parametrize("what", TRAJECTORIES)
def test_trajectories_that_hold_other_things(folder, what):
    edited(folder / "samples.h5", TRAJECTORIES[what])
    assert "samples.h5" in refuses(folder, *COMPARE)


def test_trajectories_of_strangers_execute_nothing(folder, tmp_path):
    """PyTables would unpickle attributes."""
    trap = np.bytes_(pickle.dumps(Trap(tmp_path / "sprung"), 0))
    with h5py.File(folder / "samples.h5", "r+") as file:
        for one in (file, file["coordinates"]):
            for name in ("TITLE", "CLASS", "title", "conventions", "FLAVOR"):
                one.attrs[name] = trap
    run(*COMPARE)
    run("init", "samples.h5", "--temperature", 300, "--select", "all", "-o", "new.yaml")
    (folder / "forces.npy").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refuses(folder, *INIT, "--forces", "forces.npy")
    np.save(folder / "forces.npy", np.array([Trap(tmp_path / "sprung")]), allow_pickle=True)
    refuses(folder, *INIT, "--forces", "forces.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ensemble.h5", REFERENCE),
        ("ensemble.h5", TRAIN),
        ("samples.h5", COMPARE),
        ("samples.pdb", REFERENCE),
        ("samples.xtc", ("compare", "ALDP", "--samples", "samples.xtc", "-o", "new")),
        ("top.pdb", INIT),
        ("run.dcd", INIT),
        ("forces.npy", (*INIT, "--forces", "forces.npy")),
    ],
)
@settings(FEW, max_examples=4)
@given(data=st.data())
def test_files_that_are_cut_off_or_random(folder, name, command, data):
    path = folder / name
    good = path.read_bytes()
    end = len(good) // 2 if name in ("samples.pdb", "top.pdb", "run.dcd", "samples.xtc") else len(good) - 1
    bad = data.draw(st.one_of(st.binary(max_size=300), st.integers(0, 40).map(lambda n: good[:n] if end > n else b"")))
    path.write_bytes(bad)
    read_source.cache_clear()
    try:
        assert name.partition(".")[0] in refuses(folder, *command)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("name", "command"), [("ensemble.h5", REFERENCE), ("ensemble.h5", TRAIN), ("samples.h5", COMPARE)])
def test_hdf5_that_is_cut_off(folder, name, command, fraction):
    good = (folder / name).read_bytes()
    (folder / name).write_bytes(good[: int(fraction * len(good))])
    assert name in refuses(folder, *command)


# PDB and other trajectories.

PDB = {
    "no atoms": "END\n",
    "another molecule": "ATOM      1  CA  GLY A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n",
    "coordinates that are text": "ATOM      1  CA  GLY A   1         x       y       z    1.00  0.00           C\nEND\n",
    "coordinates that are NaN": "ATOM      1  CA  GLY A   1         nan     nan     nan  1.00  0.00           C\nEND\n",
    "a line that is cut off": "ATOM      1  CA  GLY A   1     ",
    "models that are not ended": "MODEL 1\n" * 3,
    "bytes": "\u20ac\x00\x01",
    "a bond to nowhere": "ATOM      1  CA  GLY A   1       0.000   0.000   0.000  1.00  0.00           C\nCONECT    1 9999\nEND\n",
}


@pytest.mark.parametrize("what", PDB)
def test_pdb_of_other_things(folder, what):
    for name, command in (
        ("samples.pdb", REFERENCE),
        ("top.pdb", INIT),
        ("top.pdb", ("init", "top.pdb", "--temperature", 300, "--select", "all", "-o", "new.yaml")),
        ("top.pdb", ("reference", "mine", "--structure", "top.pdb", "--ns", 4e-5, "--every", 0.01, "--replicas", 2, "-o", "new.h5")),
    ):
        (folder / name).write_text(PDB[what], encoding="utf-8")
        read_source.cache_clear()
        refuses(folder, *command)


def test_trajectories_of_other_atoms(folder):
    one = mdtraj.load(str(folder / "samples.pdb"))
    one.atom_slice([0, 1, 2, 3]).save_dcd(str(folder / "few.dcd"))
    next(one.topology.atoms).name = "CX"
    one.save_pdb(str(folder / "renamed.pdb"))
    for name in ("few.dcd", "renamed.pdb", "run.dcd"):
        refuses(folder, "compare", "ALDP", "--samples", name, "-o", "new")
        refuses(folder, "compare", "ALDP", "--simulation", name, "-o", "new")
    refuses(folder, "init", "few.dcd", "--topology", "top.pdb", "--temperature", 300, "-o", "new.yaml")
    refuses(folder, "compare", "KS", "--samples", "samples.h5", "-o", "new")
    np.save(folder / "forces.npy", np.zeros((60, 10)))
    refuses(folder, *INIT, "--forces", "forces.npy")
    np.save(folder / "forces.npy", np.full((60, 10, 3), np.nan))
    refuses(folder, *INIT, "--forces", "forces.npy")
    np.save(folder / "forces.npy", np.zeros((60, 9, 3)))
    refuses(folder, *INIT, "--forces", "forces.npy")


# Arguments.

ODD = (
    "",
    " ",
    "-",
    "--",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "1e-400",
    "9" * 400,
    "1_0",
    "½",
    "٣",
    "\u202e",
    "💥",
    "\udcff",
    "0x10",
)
OPTIONS = {
    "sample": (SAMPLE, ("-n", "--seed", "--threads", "--model")),
    "reweight": (REWEIGHT, ("-n", "--seed", "--threads", "--model")),
    "simulate": (SIMULATE, ("--ns", "--replicas", "--time-step", "--every", "--seed", "--threads", "--model")),
    "emulate": (EMULATE, ("-n", "--ns", "--replicas", "--time-step", "--every", "--limit", "--workers", "--model")),
    "compare": (COMPARE, ("--samples", "--simulation", "--reference", "--model", "--seed")),
    "init": (INIT, ("--temperature", "--topology", "--select", "--forces", "--native", "--stride", "--steps")),
    "calibrate": (CALIBRATE, ("--samples", "--replicas", "--ps", "--seed", "--threads", "--model")),
    "refine": (REFINE, ("--data", "--validation", "--samples", "--replicas", "--ps", "--seed", "--threads")),
}
#: Values that are right.
_COUNTS = ("--seed", "-n", "--threads", "--limit", "--stride", "--steps", "--samples", "--replicas", "--workers")
_NUMBERS = (*_COUNTS, "--ns", "--ps", "--every", "--time-step", "--temperature")
RIGHT = {(o, v) for o in _NUMBERS for v in ("1_0", "٣")} | {("--seed", "0")}
PAIRS = [(c, o, v) for c, (_, options) in OPTIONS.items() for o in options for v in ODD if (o, v) not in RIGHT]


@pytest.mark.parametrize("command", [name for name, (_, options) in OPTIONS.items() if {"-n", "--samples"} & {*options}])
def test_more_samples_than_fit_any_memory(folder, command):
    arguments, options = OPTIONS[command]
    refuses(folder, *arguments, "-n" if "-n" in options else "--samples", "9" * 400)


@settings(FEW, max_examples=60)
@given(chosen=st.sampled_from(PAIRS))
def test_values_of_options(folder, chosen):
    command, option, value = chosen
    read_source.cache_clear()
    refuses(folder, *OPTIONS[command][0], option, value)


def test_of_an_option_that_is_not_there_the_help_that_is_named_has_those_that_are(folder):
    assert "No such option: --temperature (scoremd simulate --help says what there is)" in refuses(folder, *SIMULATE, "--temperature", 350)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--hottest", value) for value in ("nan", "inf", "1e9", 300, 0, "9" * 400)),
        *(("--replicas", value) for value in (1, -1, 10**6, "9" * 400, "2.5")),
        *((option, value) for option in ("--ns", "--every", "--time-step") for value in ("nan", "inf", 0, -1, 1e300)),
        *(("--temperature", value) for value in ("nan", "inf", 0, -1, 700)),
        ("--solvent", "water"),
        ("--platform", "none"),
        ("--seed", -1),
    ],
)
def test_values_of_options_of_reference(folder, option, value):
    refuses(folder, *MAKE_REFERENCE, option, value)


def test_names_of_two_lines(folder):
    refuses(folder, *COMPARE, "--simulation", "a\nb")


@settings(FEW, max_examples=30)
@given(
    command=st.sampled_from(("sample", "simulate", "emulate", "compare", "reweight", "reference", "train", "refine", "calibrate", "init")),
    name=st.text(max_size=30).filter(lambda s: not s.startswith("-")),
)
def test_names_that_are_random(folder, command, name):
    more = {"train": (), "refine": ("--data", "ensemble.h5"), "init": ("--temperature", 300)}.get(command, ())
    output = (
        ()
        if command == "train"
        else ("-o", {"emulate": "new", "compare": "new", "refine": "new", "calibrate": "new", "init": "new.yaml"}.get(command, "new.h5"))
    )
    refuses(folder, command, name, *more, *output)


@settings(FEW, max_examples=20)
@given(
    arguments=st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from(["--model", "-o", "-n", "sample", "ALDP", "--ns"])), min_size=2, max_size=5
    )
)
def test_arguments_that_are_random(folder, arguments):
    if arguments[0] != "list" and "--help" not in arguments:
        refuses(folder, *arguments)


@pytest.mark.parametrize("output", ["", ".", "..", "none/new.h5", "new", "new.xyz", "top.pdb/new.h5", "a\0.h5", "x" * 300 + ".h5", "model"])
def test_outputs_that_cannot_be(folder, output):
    for command in (SAMPLE, SIMULATE, REWEIGHT):
        refuses(folder, *command[:-1], output)


@pytest.mark.parametrize("output", ["top.pdb", "top.pdb/new", "a\0", "x" * 300, "model", "run.dcd"])
def test_folders_that_cannot_be(folder, output):
    (folder / "model" / "samples.h5").write_text("mine")
    refuses(folder, *EMULATE[:-1], output)
    if output != "model":
        refuses(folder, *COMPARE[:-1], output)
    refuses(folder, *REFINE[:-1], output)
