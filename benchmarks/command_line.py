"""The commands of the package, as people type them."""

import subprocess
import sys
from pathlib import Path


def run_scoremd(folder: Path, *arguments: object) -> None:
    """`scoremd ARGUMENTS` in a folder; a CalledProcessError if it fails."""
    subprocess.run([Path(sys.executable).with_name("scoremd"), *map(str, arguments)], cwd=folder, check=True)
