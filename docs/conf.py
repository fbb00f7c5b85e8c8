"""Sphinx settings of the site. `make docs` runs build.py, which writes the pages to _build/source and then
calls Sphinx with these."""
import configparser
from pathlib import Path

DOCS = Path(__file__).resolve().parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(DOCS.parent / "settings.ini", encoding="utf-8")

project, author, release = "miniCOIL", settings["DEFAULT"]["author"], settings["DEFAULT"]["version"]
copyright = settings["DEFAULT"]["copyright"]
extensions = ["myst_nb"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "off"          # notebooks come executed
nb_render_markdown_format = "gfm"  # tables in outputs, too
nb_mime_priority_overrides = [("html", "text/markdown", 5)]
html_theme = "sphinx_book_theme"
html_title = "miniCOIL"
html_static_path = [str(DOCS / "_static"), str(DOCS / "_build" / "static")]
html_extra_path = [str(DOCS / "_build" / "extra")]
html_css_files = ["site.css"]
html_favicon = str(DOCS / "_static" / "favicon.svg")
highlight_language = "none"         # a block without a language is not Python
html_theme_options = {"use_download_button": False, "use_fullscreen_button": False, "show_toc_level": 2,
                      "home_page_in_toc": True, "navbar_persistent": []}
html_copy_source = html_show_sourcelink = False
toc_object_entries_show_parents = "hide"
html_context = {"default_mode": "auto"}
templates_path, exclude_patterns = [], []
html_show_search_summary = False   # it would fetch pages, which a browser forbids a site opened from disk
