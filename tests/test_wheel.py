"""What pip installs works by itself: model, systems and reference are inside the wheel."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Packages that are distributed under another name.
DISTRIBUTIONS = {"yaml": "pyyaml"}
#: Imported only where they are installed.
OPTIONAL = {"torch_cluster", "openmmml", "PeptideBuilder", "Bio", "distributed"}


def imported_packages():
    """What scoremd imports apart from the standard library and itself."""
    found = set()
    for path in (ROOT / "scoremd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found |= {name.split(".")[0] for name in names}
    return found - set(sys.stdlib_module_names) - {"scoremd"} - OPTIONAL


def test_a_folder_of_the_same_name_hides_nothing(tmp_path):
    """Such as that of a clone, where Python is started beside it."""
    (tmp_path / "scoremd").mkdir()
    subprocess.run([sys.executable, "-c", "import scoremd; scoremd.ForceField"], check=True, cwd=tmp_path)


def test_wheel_in_an_empty_environment_samples(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SCOREMD_PATH")}
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "emulation"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(pip, check=True, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    assert {f"scoremd/lanes/{name}.hpp" for name in ("kernels", "single", "functions")} <= set(zipfile.ZipFile(wheel).namelist())
    packaged = {str(Path(name).parent) for name in zipfile.ZipFile(wheel).namelist()}
    assert {str(p.parent.relative_to(ROOT)) for p in (ROOT / "scoremd").rglob("__init__.py")} <= packaged
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    required = set(re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", zipfile.ZipFile(wheel).read(metadata).decode(), re.MULTILINE))
    assert {DISTRIBUTIONS.get(name, name) for name in imported_packages()} <= required
    (points,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("entry_points.txt"))
    assert "[openmmml.potentials]\nscoremd = scoremd.openmm_ml:" in zipfile.ZipFile(wheel).read(points).decode()
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, env=environment)
    # the dependencies are those of this environment: only our own package is under test
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    code = (
        "import scoremd, sys; from scoremd.lanes import program; program.find_compiler = lambda: None;"
        "traj = scoremd.ForceField.load('alanine-dipeptide').sample('ALDP', 2); assert traj.n_frames == 2;"
        f"assert scoremd.__file__.startswith({str(site)!r}), scoremd.__file__;"
        "assert scoremd.load_system('ALDP').reference_ensemble().n_frames == 120000"
    )
    subprocess.run([python, "-c", code], check=True, env=environment, cwd=tmp_path)
