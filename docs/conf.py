"""How the guide is built: `make docs`. Nothing is fetched, neither while it is built nor when it is read."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

project = "Snapcount"
author = "the Snapcount project"
copyright = "the Snapcount project, Apache-2.0"
version = release = installed("snapcount")

extensions = ["myst_parser", "guide"]
exclude_patterns = ["_ext"]
myst_heading_anchors = 4
nitpicky = True
smartquotes = False  # `--` within a sentence is an option

html_theme = "furo"
html_title = f"Snapcount {version}"
html_copy_source = False
html_show_sphinx = False
