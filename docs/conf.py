"""Sphinx configuration of the documentation; `make docs` builds it into build/docs.

The sources are the Markdown pages of the repository. Links between them, also to headings, are
checked; external links are not fetched, and the pages load nothing from the network.
"""

from sphinx.application import Sphinx

project = "toxtrail"
author = "The toxtrail authors"
extensions = ["myst_parser", "sphinx_external_toc", "sphinx_click"]

include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*.rst",
    "benchmarks/RESULTS.md",
    "data/sources/README.md",
]
external_toc_path = "docs/toc.yml"
external_toc_exclude_missing = False

myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = "toxtrail"
html_extra_path = ["site/root"]  # an entry page
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
highlight_language = "text"
smartquotes = False


def examples_as_code(_app: object, _context: object, lines: list[str]) -> None:
    """Show the examples of a command's help as code: sphinx-click shows them as lines of a text."""
    heading = "| Examples:"
    if heading in lines:
        start = lines.index(heading) + 1
        end = next((n for n in range(start, len(lines)) if lines[n][:1] != "|"), len(lines))
        lines[start - 1 : end] = ["Examples::", "", *(line[1:] for line in lines[start:end]), ""]


def setup(app: Sphinx) -> None:
    """Register the change of the help texts."""
    app.connect("sphinx-click-process-description", examples_as_code)
