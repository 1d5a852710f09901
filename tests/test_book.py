"""The book builds without a warning, holds every page, and loads nothing from the network.

Its pages are executed with preset ``smoke``, unless ``--preset`` says otherwise.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())

SPHINX_KEYS = {
    "add_module_names",
    "autodoc_default_options",
    "autodoc_member_order",
    "bibtex_reference_style",
    "extensions",
    "hide_solutions",
    "html_context",
    "html_css_files",
    "html_js_files",
    "html_show_sphinx",
    "html_static_path",
    "html_theme_options",
    "include_patterns",
    "mathjax_path",
    "nb_ipywidgets_js",
    "nb_render_markdown_format",
    "nitpick_ignore_regex",
    "suppress_warnings",
    "toc_object_entries",
}
ALLOWED = {
    "title": None,
    "author": None,
    "copyright": None,
    "logo": None,
    "only_build_toc_files": None,
    "exclude_patterns": None,
    "bibtex_bibfiles": None,
    "execute": {"execute_notebooks", "timeout", "raise_on_error", "stderr_output"},
    "parse": {"myst_enable_extensions"},
    "html": {
        "use_repository_button",
        "use_issues_button",
        "use_edit_page_button",
        "home_page_in_navbar",
        "favicon",
    },
    "repository": {"url", "branch"},
    "launch_buttons": {"notebook_interface", "binderhub_url", "colab_url"},
    "sphinx": {"config", "local_extensions", "recursive_update"},
}
# Attributes by which a page loads something as soon as it is opened.
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}


def toc_pages() -> list[str]:
    """Names of all pages, in order, without suffix."""

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            for child in node.values():
                yield from walk(child)
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    return list(walk(TOC))


class Page(HTMLParser):
    """The opening tags of an HTML page, with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def loads(self) -> list[str]:
        return [attrs[LOADS[tag]] for tag, attrs in self.tags if LOADS.get(tag) in attrs]

    def images(self) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == "img"]


def remote(address: str) -> bool:
    return re.match(r"(https?:)?//", address) is not None


@pytest.fixture(scope="module")
def pages(html: Path) -> dict[str, Page]:
    """Every page of the book by its name in the table of contents."""
    return {name: Page(html / f"{name}.html") for name in toc_pages()}


def test_jupyter_book_is_version_1():
    assert version("jupyter-book").startswith("1.")


def test_config_has_no_unknown_key():
    assert set(CONFIG) <= set(ALLOWED)
    for section, keys in ALLOWED.items():
        if keys is not None:
            assert set(CONFIG[section]) <= keys, section
    assert set(CONFIG["sphinx"]["config"]) <= SPHINX_KEYS
    assert "linkify" not in CONFIG["parse"]["myst_enable_extensions"]


def test_every_page_of_the_toc_has_one_source():
    for name in toc_pages():
        sources = [ROOT / f"{name}{suffix}" for suffix in (".md", ".ipynb")]
        assert sum(source.exists() for source in sources) == 1, name


def test_every_page_is_built_and_no_other(html: Path, pages: dict[str, Page]):
    assert (html / "index.html").exists()
    made = {p.relative_to(html).with_suffix("").as_posix() for p in html.rglob("*.html")}
    extra = {"index", "genindex", "py-modindex", "search"}
    assert {name for name in made if not name.startswith("_static/")} - extra == set(pages)


def test_pages_load_nothing_from_the_network(html: Path, pages: dict[str, Page]):
    for name, page in pages.items():
        assert [address for address in page.loads() if remote(address)] == [], name
    for style in html.glob("_static/**/*.css"):
        found = re.findall(
            r"(?:url\(|@import\s)\s*[\"']?((?:https?:)?//[^\"')]+)", style.read_text()
        )
        assert found == [], style.name


def test_pages_load_only_what_is_there(html: Path, pages: dict[str, Page]):
    for name, page in pages.items():
        folder = (html / f"{name}.html").parent
        files = [a.split("?")[0].split("#")[0] for a in page.loads() if not a.startswith("data:")]
        assert [file for file in files if file and not (folder / file).exists()] == [], name


def test_formulas_come_with_the_book(html: Path, pages: dict[str, Page]):
    scripts = [a for a in pages["book/notation"].loads() if "mathjax" in a]
    assert len(scripts) == 1
    static = html / "_static" / "mathjax"
    assert len(list(static.glob("output/chtml/fonts/woff-v2/*.woff"))) == 23
    assert (static / "LICENSE").exists()


def test_a_sentence_that_a_cell_writes_has_its_formulas(pages: dict[str, Page]):
    for name, page in pages.items():
        assert re.findall(r"<p>[^<]*\$\S[^$<]*\$", page.text) == [], name


def test_no_page_shows_a_traceback(pages: dict[str, Page]):
    for name, page in pages.items():
        if not name.startswith("book/api"):  # an example there may show an error
            assert "Traceback (most recent call last)" not in page.text, name
        assert 'class="output traceback' not in page.text, name


@pytest.mark.parametrize("name", [name for name in toc_pages() if name.startswith("notebooks/")])
def test_notebook_pages_have_figures_with_alt_text(pages: dict[str, Page], name: str):
    images = pages[name].images()
    assert images
    for image in images:
        alt = image.get("alt", "")
        # Without a text of its own Sphinx gives the name of the file.
        assert len(alt) >= 20 and not alt.endswith((".png", ".svg", ".jpeg")), image
