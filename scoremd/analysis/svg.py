"""A figure as SVG that stands inside an HTML page: ink and font are the page's, and nothing refers outside."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def inline_svg(figure: Figure, name: str, title: str) -> Markup:
    """Render a figure for the page.

    Parameters
    ----------
    figure
        To be drawn.
    name
        Letters and digits that no other figure of the page has: every id in the SVG begins with it.
    title
        What the picture shows, for those who cannot see it.

    Returns
    -------
    Markup
        An svg element. Black becomes the page's text colour.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scoremd"}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\sid="([^"]*)"', rf' id="{name}-\1"', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1))
    text = text.replace("#000000", "currentColor")
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    # matplotlib's style element would hold for the whole page.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return Markup(text)  # noqa: S704  matplotlib escapes what it writes, the title is escaped here
