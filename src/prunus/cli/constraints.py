"""``prunus constraints``: what pip is to be held to, so that nothing it installs breaks models."""

from __future__ import annotations

import typer

from prunus.cli.console import err, print_json
from prunus.cli.options import AsJson
from prunus.versions import constraints as held_to
from prunus.versions import foreign_torchvision, tested


def constraints(as_json: AsJson = False) -> None:
    """Print a file for `pip install -c`: the torch that is here, the torchvision of the same build,
    and the transformers that were tested.

    Without it, `pip install 'prunus[video]'` beside a torch for the CPU takes a torchvision for
    CUDA, or another torch; the first stops every model.
    """
    held, found = held_to(), foreign_torchvision()
    if as_json:
        print_json({"constraints": held, "foreign_torchvision": found})
        return
    local = held["torch"].partition("+")[2]
    typer.echo(f"# What fits here (prunus constraints): this torch, {tested()}.")
    if local:
        typer.echo(
            f"# +{local}: give pip the index that torch was taken from, with --extra-index-url."
        )
    for name, wanted in held.items():
        typer.echo(f"{name}{wanted}")
    if "torchvision" not in held:
        err().print(
            f"note: torch {held['torch'].removeprefix('==')} is no release: take torchvision from "
            "the same index and day",
            markup=False,
            soft_wrap=True,
        )
    elif found is not None:
        err().print(
            f"note: torchvision {found} is installed, not torchvision{held['torchvision']}: take "
            "it away (pip uninstall torchvision), or replace it with this file",
            markup=False,
            soft_wrap=True,
        )
