"""``prunus hub``: selectors and calibrations, to and from the Hugging Face hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.console import out, print_json
from prunus.cli.errors import BadInput
from prunus.cli.options import AsJson
from prunus.io.files import check_place, replace_folder, replacing

app = typer.Typer(help="Share selectors and calibrations on the hub.", no_args_is_help=True)

Place = Annotated[
    Path, typer.Argument(metavar="PATH", help="The folder of a selector, or a calibration's file.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="On the hub: me/my-selector.")]


@app.command()
def push(
    path: Place,
    name: Name,
    private: Annotated[bool, typer.Option("--private", help="If it is made now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a selector or a calibration on the hub, with a page of its own; `hf auth login` first."""
    from prunus.sharing import push_to_hub

    address = push_to_hub(path, name, private=private)
    if as_json:
        print_json({"address": address})
    else:
        out().print(address, markup=False, soft_wrap=True)


@app.command()
def pull(
    name: Name,
    output: Annotated[
        Path | None, typer.Option(help="Copy it there; default: it stays in the hub's cache.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a selector or a calibration, and say where it lies."""
    from prunus.sharing import from_pretrained

    if output is not None:
        if os.path.lexists(output):  # also a link that leads nowhere
            raise BadInput(f"--output {str(output)!r} is there already: give another name")
        check_place(output, "the copy")
    found = from_pretrained(name, revision=revision)
    if output is not None:
        _copy(found, output)
        found = output
    if as_json:
        print_json({"path": str(found)})
    else:
        out().print(str(found), markup=False, soft_wrap=True)


def _copy(found: Path, output: Path) -> None:
    """All of it, or nothing where that was interrupted."""

    def write(fresh: Path) -> None:
        shutil.copytree(found, fresh, dirs_exist_ok=True)

    if found.is_dir():
        replace_folder(output, write)
        return
    with replacing(output) as partial:
        shutil.copyfile(found, partial)


@app.command()
def page(path: Place, name: Name = "me/my-selector") -> None:
    """Print the page that `push` would write; nothing is sent."""
    from prunus.sharing import pack, page_of

    typer.echo(page_of(pack(path), name))
