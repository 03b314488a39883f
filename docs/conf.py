"""How the site is built: `make docs`. What it needs of its own stands in `_sphinx/`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_sphinx"))
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("BT_LLM_CACHE_DIR", tempfile.mkdtemp(prefix="bt-llm-docs-"))

import reference  # noqa: E402

import bt_llm  # noqa: E402

GENERATED = HERE / "generated"
reference.write(GENERATED)

project = "bt_llm"
author = "the bt_llm founders"
copyright = "the bt_llm founders; GPL-3.0-or-later"
version = release = bt_llm.__version__
language = "en"
smartquotes = False  # `--each` stays what it is
root_doc = "index"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "executed",
    "llms",
]
exclude_patterns = ["_sphinx", "images", "generated/gallery/*.ipynb"]
suppress_warnings = [
    "config.cache",  # the gallery's settings hold functions
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1800
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
numpydoc_show_class_members = False
templates_path = ["_templates"]
add_module_names = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["generated/gallery"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "only_warn_on_example_error": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "download_all_examples": False,
    "write_computation_times": False,
    "plot_gallery": True,
    "parallel": True,
    "reset_modules": ("matplotlib",),
    "doc_module": (),
    "image_scrapers": ("matplotlib",),
}

html_theme = "pydata_sphinx_theme"
html_title = "bt_llm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = True
html_show_sourcelink = True
html_show_copyright = False
html_theme_options = {
    "logo": {"text": "bt_llm"},
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "secondary_sidebar_items": ["page-toc", "sourcelink"],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "search_as_you_type": True,
}
html_context = {"default_mode": "auto"}
