import io

from rich.console import Console

from scoremd import progress as module
from scoremd.progress import progress


def test_of_bars_within_a_bar_only_the_outer_one_is_shown(monkeypatch):
    monkeypatch.setattr(module, "Console", lambda file: Console(file=io.StringIO(), force_terminal=True))
    monkeypatch.setattr(module, "_on_terminal", lambda: True)
    shown = []
    for _ in range(2):
        with progress("outer", 1, "steps") as outer, progress("inner", 1, "steps") as inner:
            shown += [not outer._progress.disable, not inner._progress.disable]
    assert shown == [True, False] * 2


def test_nothing_is_shown_without_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(module.sys, "stderr", io.StringIO())
    with progress("quiet", 1, "steps") as bar:
        assert bar._progress.disable
