"""Sphinx: MyST pages, docstrings, one bibliography. `make docs` builds with warnings as errors."""

import sys
from pathlib import Path

import survlens

sys.path.insert(0, str(Path(__file__).parent / "ext"))

project = "survlens"
author = "The survlens developers"
version = release = survlens.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinxcontrib.bibtex",
    "public_names",
]
exclude_patterns = ["_build", "ext"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

bibtex_bibfiles = ["refs.bib"]
bibtex_default_style = "alpha"
bibtex_reference_style = "author_year"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"survlens {release}"
html_show_sphinx = False
