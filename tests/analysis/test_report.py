import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import mdtraj
import numpy as np
import pytest

from scoremd.analysis.compare import compare
from scoremd.analysis.report import render_report, write_report
from scoremd.errors import ScoreMDError

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects ids, references and the balance of elements."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.elements = [], [], [], []
        self.feed(text)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes, closed=True)

    def handle_starttag(self, tag, attributes, closed=False):
        self.elements.append(tag)
        if tag not in VOID and not closed:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in {"src", "href", "xlink:href", "data", "action", "srcset"}:
                self.references.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def without_scripts(text):
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


@pytest.fixture
def comparison(system, frames, reference):
    replicas = np.repeat(np.arange(20), 100)
    return compare(frames(1000, 1), frames(2000, 2), system, simulation_groups=replicas, reference=reference, lost_replicas=2)


def test_the_report_is_one_whole_page_that_needs_no_network(comparison):
    text = render_report(comparison, {"command": "scoremd emulate ALDP"})
    page = Page(text)
    assert page.open == []
    assert page.elements.count("svg") == 3 + 3 + 2 + 4
    assert page.references
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert not re.search(r"https?://|@import|url\((?!#)", without_scripts(text))
    # and whatever scripts know of, the browser is told to fetch nothing
    assert "default-src 'none'" in text
    assert len(set(page.ids)) == len(page.ids)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert len(text) < 5_000_000


def test_structures_of_each_ensemble_are_in_the_page_superposed(comparison, system, reference):
    text = render_report(comparison, {})
    content = json.loads(re.search(r'<script type="application/json" id="structures-data">(.*?)</script>', text)[1])
    assert content["elements"] == [bead.symbol for bead in system.beads]
    assert content["bonds"] == [list(bond) for bond in system.bonds]
    shown = {name: np.array(frames) / 10 for name, frames in content["frames"].items()}
    assert {name: frames.shape for name, frames in shown.items()} == dict.fromkeys(("reference", "samples", "simulation"), (12, 5, 3))
    first, last = reference.positions[[0, -1]]
    distances = [np.linalg.norm(x[:, None] - x, axis=-1) for x in (first, last, shown["reference"][0], shown["reference"][-1])]
    np.testing.assert_allclose(distances[2:], distances[:2], atol=0.003)
    for frames in shown.values():
        moved = np.sqrt(((frames - first) ** 2).sum(-1).mean(-1))
        # of a copy: mdtraj centres it
        least = mdtraj.rmsd(mdtraj.Trajectory(frames, system.topology()), mdtraj.Trajectory(first[None].copy(), system.topology()))
        np.testing.assert_allclose(moved, least, atol=0.003)
    assert set(re.findall(r'type="checkbox" value="(\w+)"', text)) == set(shown)


@pytest.mark.slow
def test_a_browser_draws_the_structures_offline(comparison, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    page = write_report(tmp_path / "report.html", comparison, {})
    flags = ["--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--virtual-time-budget=5000"]
    seen = subprocess.run([browser, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True, timeout=300).stdout
    assert re.search(r'<div class="viewer" id="structures"[^>]*>.*?<canvas', seen)
    assert "structures cannot be drawn" not in without_scripts(seen)


def test_the_report_tells_what_was_lost_and_where_it_is_from(comparison):
    text = render_report(comparison, {"command": "scoremd emulate <ALDP> & co", "model": "f00d"})
    assert "2 replicas of the simulation blew up" in text
    assert "scoremd emulate &lt;ALDP&gt; &amp; co" in text
    assert "f00d" in text
    assert "There is no reference" not in text
    for row in comparison.rows() + comparison.ensemble_rows():
        assert all(cell.replace("'", "&#39;").replace("<", "&lt;").replace(">", "&gt;") in text for cell in row)


def test_the_report_says_plainly_that_there_is_no_reference(system, frames):
    text = render_report(compare(frames(200, 1), frames(400, 2), system), {})
    assert "There is no reference ensemble." in text
    assert Page(text).elements.count("svg") == 2 + 1 + 2 + 4


def test_the_report_of_samples_alone(system, frames, reference):
    assert "There is no simulation" in render_report(compare(frames(200, 1), None, system, reference=reference), {})


def test_the_file_is_written_whole_or_not_at_all(comparison, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(path, comparison, {}) == path
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ScoreMDError, match="is a folder"):
        write_report(tmp_path, comparison, {})
