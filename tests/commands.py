"""The `scoremd` command, run in the tests' own process."""

from typer.testing import CliRunner

from scoremd.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result, *words):
    """One line on stderr, code 2, no traceback."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("scoremd: ")
    for word in words:
        assert word in result.stderr, result.stderr
