"""The rooms of the package, left to right: each knows only those to its left."""

import ast
from pathlib import Path

import scoremd

PACKAGE = Path(scoremd.__file__).parent
#: What people use; nothing behind it knows of it.
_FRONT = (
    "equilibration",
    "flattening",
    "calibration",
    "refinement",
    "emulation",
    "cluster",
    "survey",
    "openmm",
    "openmm_ml",
    "doctor",
    "cli",
)
FORBIDDEN = {
    "nn": ("diffusion", "training", "simulation", "analysis", "force_field", *_FRONT),
    "diffusion": ("training", "simulation", "analysis", "force_field", *_FRONT),
    "training": ("simulation", "analysis", "force_field", *_FRONT),
    "simulation": ("training", "analysis", *_FRONT),
    "analysis": ("nn", "diffusion", "training", "simulation", "force_field", *_FRONT),
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"scoremd.{a.name}" for a in node.names] if node.module == "scoremd" else [node.module or ""]
        else:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("scoremd."))


def test_rooms_know_only_those_to_their_left():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for name, forbidden in FORBIDDEN.items()
        for path in sorted((PACKAGE / name).rglob("*.py"))
        for room in imported_rooms(path)
        if room in forbidden
    ]
    assert not wrong, wrong
