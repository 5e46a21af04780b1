"""Settings of the documentation: `python -m sphinx -W docs OUT`."""

import os
import pathlib
import sys

import sgpo_jax

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_extensions"))

project = "sgpo_jax"
author = copyright = "the authors of sgpo_jax"
version = release = sgpo_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    # Of this project, in _extensions/: pages made of the package and its results.
    "mirrored",
    "drawings",
    "api_pages",
    "method_pages",
    "evidence_pages",
]
exclude_patterns = ["_build", "_extensions", "**.ipynb_checkpoints"]

html_theme = "sphinx_book_theme"
html_title = "sgpo_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Browsers typeset equations with MathJax, from its usual address; or with the file this
# variable names (es5/tex-svg.js of npm's mathjax 3): then pages need no network.
if mathjax := os.environ.get("SGPO_MATHJAX"):
    html_static_path.append(os.path.abspath(mathjax))
    mathjax_path = os.path.basename(mathjax)
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "use_download_button": False,
    "use_fullscreen_button": False,
    # The side bar has the search; the bar at the top would have a second one.
    "navbar_persistent": [],
    "extra_footer": "",
}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# The benchmarks' pages are also read as files, where a title may be a second level.
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

# Notebooks are executed by CI; `-D nb_execution_mode=cache` executes them here.
nb_execution_mode = "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 78
napoleon_use_ivar = True
napoleon_use_rtype = False
# In docstrings, single backticks are names: linked where they can be.
default_role = "py:obj"

linkcheck_ignore = [r"http://localhost.*"]
linkcheck_timeout = 20
# Their anchors are made by scripts.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]
linkcheck_retries = 2
