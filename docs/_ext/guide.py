"""The generator's extension: fills the reference's pages from the code, and knows the languages that highlighting does not."""

from typing import Any

import guide_reference
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

PLAIN = ("cddl", "wit", "udev", "gcode")


def _fill(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001  # what Sphinx passes
    source[0] = guide_reference.filled(source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _fill)
    for language in PLAIN:
        app.add_lexer(language, TextLexer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
