"""What MkDocs asks while it builds the site: pages that are written, and links that are mended.

``python -m mkdocs build``, from the root of the repository (``make docs``). Pages in docs/ are as
they are read in the repository; what a site has more (a page for each method, the reference, the
notebooks) is made here and committed nowhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

from prunus.versions import __version__
from tools.docs import catalogue, figures, notebooks, reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Pages of the root that others link to.
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md")


def on_config(config: Any) -> Any:
    """The version is told on every page, and the navigation has what is written below."""
    config.extra["release"] = __version__
    behind = {
        "Methods": [{"One by one": [f"methods/{name}.md" for name in catalogue.known()]}],
        "Reference": [*reference.navigation(), {"Changes": "CHANGELOG.md"}],
    }
    for part in config.nav:
        [(title, pages)] = part.items()
        if title == "Your own":
            pages.append({"Notebooks": notebooks.navigation()})
            pages.append({"Contributing": "CONTRIBUTING.md"})
        elif title in behind:
            pages += behind[title]
    # A page that nobody put anywhere is not lost.
    listed = set(re.findall(r"'([\w./-]+\.md)'", repr(config.nav)))
    behind_all = sorted(one.name for one in DOCS.glob("*.md") if one.name not in listed)
    if behind_all:
        config.nav.append({"More": list(behind_all)})
    return config


def on_files(files: Files, config: Any) -> Files:
    """The pages that are written."""
    made: dict[str, str | bytes] = {name: (ROOT / name).read_text("utf-8") for name in OUTSIDE}
    pictures = figures.of_methods(ROOT / "build" / "docs", list(catalogue.known()))
    made |= {f"methods/img/{name}.png": content for name, (_, content) in pictures.items()}
    commands = {name: line for name, (line, _) in pictures.items()}
    made |= {
        f"methods/{name}.md": catalogue.page(name, commands.get(name)) for name in catalogue.known()
    }
    made |= reference.pages()
    made |= notebooks.pages()
    made |= _listings()
    for uri, content in made.items():
        one = File.generated(config, uri, content=content)
        if uri.startswith("data/"):  # only linked to
            one.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(one)
    return files


def _listings() -> dict[str, str]:
    """For each folder of data a page that lists it, in the place of what a repository shows."""
    found = {}
    for folder in sorted({DOCS / "data", *(one.parent for one in (DOCS / "data").rglob("*.*"))}):
        files = [one for one in sorted(folder.iterdir()) if one.is_file()]
        lines = [f"* [{one.name}]({one.name})" for one in files]
        uri = folder.relative_to(DOCS).as_posix()
        found[f"{uri}/index.md"] = "\n".join([f"# {uri}", "", *lines, ""])
    return found


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to folders and to what lies beside docs/, as the site has them."""
    uri = page.file.src_uri
    if uri in OUTSIDE:  # as seen from the root
        markdown = re.sub(r"\]\(docs/([^)]*)\)", r"](\1)", markdown)
        markdown = re.sub(r"\]\(README\.md\)", "](index.md)", markdown)
        markdown = re.sub(r"\[([^\]]*)\]\(LICENSE\)", r"\1", markdown)
    markdown = re.sub(r"\]\(\.\./(CHANGELOG|CONTRIBUTING)\.md", r"](\1.md", markdown)
    markdown = re.sub(r"\]\(\.\./README\.md", "](index.md", markdown)
    markdown = re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", markdown)  # sources are not there
    markdown = re.sub(r"\]\((data(?:/[\w-]+)?)/?\)", r"](\1/index.md)", markdown)
    markdown = re.sub(r"\]\(notebooks/([\w-]+)\.ipynb\)", r"](notebooks/\1.md)", markdown)
    if uri.startswith("notebooks/"):
        markdown = re.sub(r"(?<!\[download)\]\(([\w-]+)\.ipynb\)", r"](\1.md)", markdown)
    if uri == "methods.md":
        for name in catalogue.known():
            markdown = markdown.replace(f"](#{name})", f"](methods/{name}.md)")
            markdown = re.sub(
                rf"^## {re.escape(name)}\n",
                f"## {name}\n\n[Its page](methods/{name}.md). ",
                markdown,
                flags=re.MULTILINE,
            )
    return markdown
