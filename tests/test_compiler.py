import pytest
import torch
from torch._inductor import cpp_builder

from scoremd import compiler


def write(path):
    path.write_text("made")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_is_kept_is_not_made_again():
    path = compiler.kept(".so", ["a", b"b"], write)
    assert path.read_text() == "made"

    def refuse(_):
        raise RuntimeError("made again")

    assert compiler.kept(".so", ["a", b"b"], refuse) == path
    assert compiler.kept(".so", ["a", b"c"], write) != path


@pytest.mark.parametrize("damage", ["cut", "no digest"])
def test_what_was_damaged_is_made_again(damage):
    path = compiler.kept(".so", ["a"], write)
    if damage == "cut":
        path.write_text("ma")
    else:
        path.with_name(path.name + ".sha256").unlink()
    assert compiler.kept(".so", ["a"], lambda q: q.write_text("made again")) == path
    assert path.read_text() == "made again"
    assert compiler.kept(".so", ["a"], write).read_text() == "made again"


def test_another_version_of_the_compiler_makes_its_own(monkeypatch):
    path = compiler.kept(".so", ["a"], write)
    monkeypatch.setattr(compiler, "_compiler_version", lambda: "another")
    assert compiler.kept(".so", ["a"], write) != path


def test_what_fails_is_said_and_leaves_nothing(caplog, tmp_path):
    def fail(path):
        path.write_text("half")
        raise RuntimeError("no such instruction\nmore")

    assert compiler.kept(".so", ["a"], fail) is None
    assert [r.message for r in caplog.records] == ["compilation failed (no such instruction): running without, many times slower"]
    assert list((tmp_path / "cache" / "scoremd").iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_done_without(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compiler.kept(".so", ["a"], write).read_text() == "made"
    assert ["not kept" in r.message for r in caplog.records] == [True]


def test_a_missing_compiler_is_said_once(caplog):
    compiler.find_compiler.cache_clear()
    cpp_builder.cpp_compiler_search.cache_clear()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert [compiler.find_compiler() for _ in range(2)] == [None, None]
    assert ["no C++ compiler" in r.message for r in caplog.records if r.name == "scoremd"] == [True]
    compiler.find_compiler.cache_clear()
    cpp_builder.cpp_compiler_search.cache_clear()
