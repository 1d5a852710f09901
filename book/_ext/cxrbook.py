"""What this book asks of Sphinx beyond its themes: facts of the build, its address, its markup."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

import cxrlib
from cxrlib.files import digest
from cxrlib.provenance import git_commit

CITATION = Path(__file__).parents[2] / "CITATION.cff"
CLONE = Path(cxrlib.__file__).parents[1]
PACKAGES = ("cxrlib", "torch", "torchvision", "lightning", "numpy", "jupyter-book")


def address(config: Config) -> tuple[str, str]:
    """The repository and its branch: ``repository`` of _config.yml, else where GitHub builds it."""
    options = config.html_theme_options
    if options.get("repository_url"):
        return options["repository_url"], options["repository_branch"]
    if "GITHUB_REPOSITORY" in os.environ:
        server, name = os.environ["GITHUB_SERVER_URL"], os.environ["GITHUB_REPOSITORY"]
        return f"{server}/{name}", os.environ["GITHUB_REF_NAME"]
    return "", ""


def set_address(app: Sphinx, config: Config) -> None:
    """Without an address there are no buttons that would lead nowhere."""
    options = config.html_theme_options
    options["repository_url"], options["repository_branch"] = address(config)
    if not options["repository_url"]:
        options.pop("launch_buttons", None)


def offer_to_run(app: Sphinx, doctree: nodes.document) -> None:
    """Below the title of a notebook's page, how it is run elsewhere."""
    url, branch = address(app.config)
    name = app.env.docname
    if not url or not name.startswith("notebooks/"):
        return
    note = nodes.admonition("", nodes.title("", "Run this page"), classes=["dropdown", "note"])
    note += nodes.paragraph("", "In Colab (the rocket above), run this cell first:")
    install = f"%pip install git+{url}@{branch}"
    note += nodes.literal_block(install, install, language="text")
    note += nodes.paragraph("", "In Binder everything is installed. On your own computer:")
    here = f"git clone --branch {branch} {url} cxrlib && cd cxrlib\npython -m pip install -e .\n"
    here += f"papermill {name}.ipynb out.ipynb"
    note += nodes.literal_block(here, here, language="bash")
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, note)


def inputs() -> str:
    """Names what the pages are computed from besides themselves: library and committed results."""
    found = (CLONE / folder for folder in ("cxrlib", "results", "benchmarks"))
    files = sorted(path for folder in found for path in folder.rglob("*") if path.is_file())
    return digest(*(path.read_bytes() for path in files if path.suffix != ".pyc"))


def outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """All pages, where the library has changed: Sphinx itself looks only at their own files."""
    before, now = getattr(env, "cxrbook_inputs", None), inputs()
    env.cxrbook_inputs = now
    return [] if before == now else sorted(env.found_docs)


def mend_markup(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """What the themes' markup keeps from a screen reader, a keyboard or a phone."""
    # A list of sources has links beside its entries, which the role of a list forbids.
    body = context.get("body", "")
    body = re.sub(r' role="(doc-biblioentry|list)"', "", body)
    # A figure of a cell leads to itself in full size; that also lets the keyboard move it sideways.
    context["body"] = re.sub(
        r'(<div class="cell_output[^>]*>\s*)(<img [^>]*src="([^"]+)"[^>]*>)',
        r'\1<a href="\3">\2</a>',
        body,
    )
    tree_of = context["generate_toctree_html"]

    def named(*args: Any, **options: Any) -> Any:
        """The sidebar, in which the button that unfolds a page's own pages has a name."""
        tree = tree_of(*args, **options)
        for button in tree.find_all("summary") if tree else ():
            if not button.get_text(strip=True):
                button["aria-label"] = "Unfold or fold"
        return tree

    context["generate_toctree_html"] = named


def skip_member(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Fields of a tuple, and functions that a field holds, are told by the class itself."""
    field = type(obj).__name__ == "_tuplegetter"
    held = what == "class" and getattr(obj, "__name__", name) != name
    return skip or field or held


def build_facts() -> dict[str, str]:
    """What a released book states of how it came about."""
    facts = {name: metadata.version(name) for name in PACKAGES}
    return {
        "Version": facts.pop("cxrlib"),
        "Commit": git_commit() or "not built from a checkout",
        "Built": f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
        "Python": platform.python_version(),
        "Packages": ", ".join(f"{name} {version}" for name, version in facts.items()),
        "System": platform.platform(),
        "Processor": f"{platform.machine()}, {os.cpu_count()} cores",
    }


class BuildFacts(SphinxDirective):
    """``{build-facts}``: version, commit, date and environment as a table."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        self.env.note_reread()  # at every build
        rows = []
        for name, value in build_facts().items():
            cells = (nodes.paragraph("", name), nodes.paragraph("", value))
            rows.append(nodes.row("", *(nodes.entry("", cell) for cell in cells)))
        group = nodes.tgroup("", nodes.colspec(colwidth=1), nodes.colspec(colwidth=4), cols=2)
        names = (nodes.entry("", nodes.paragraph("", name)) for name in ("What", "In this book"))
        group += nodes.thead("", nodes.row("", *names))
        group += nodes.tbody("", *rows)
        return [nodes.table("", group)]


def bibtex(cff: dict[str, Any], url: str) -> str:
    """The software as BibTeX, from the fields of CITATION.cff."""
    fields = {
        "author": " and ".join(f"{{{author['name']}}}" for author in cff["authors"]),
        "title": f"{{{cff['title']}}}",
        "version": cff["version"],
        "year": str(cff["date-released"])[:4],
        "license": cff["license"],
        "url": url,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join(["@software{cxrlib,", *lines, "}"])


class Citation(SphinxDirective):
    """``{software-citation}``: what CITATION.cff says, as BibTeX to copy."""

    def run(self) -> list[nodes.Node]:
        """The entry."""
        self.env.note_dependency(str(CITATION))
        entry = bibtex(yaml.safe_load(CITATION.read_text()), address(self.config)[0])
        return [nodes.literal_block(entry, entry, language="bibtex")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.set_html_assets_policy("always")  # formulas in the sidebar of pages without any
    app.connect("config-inited", set_address)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", offer_to_run)
    app.connect("html-page-context", mend_markup, priority=900)  # after the themes
    app.connect("autodoc-skip-member", skip_member)
    app.add_directive("build-facts", BuildFacts)
    app.add_directive("software-citation", Citation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
