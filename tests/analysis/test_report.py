import re
from html.parser import HTMLParser

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
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert len(set(page.ids)) == len(page.ids)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert len(text) < 5_000_000


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
