"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunus.cli.errors import BadInput

if TYPE_CHECKING:
    from prunus.method.budget import Meaning

#: Largest whole number that an option takes: what is beyond it is a slip.
MOST = 10**9

Model = Annotated[str, typer.Option(help="Built-in name, local folder or Hugging Face id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DType = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
MethodOption = Annotated[
    str,
    typer.Option(
        help="See `prunus methods`; clse@released: with a preset; evoprune+clse: one behind "
        "the other; none: unmodified."
    ),
]
KeepOption = Annotated[
    str | None,
    typer.Option(
        help="Visual tokens per image or video: 64 is a count, 0.333 or 33% a share; 0.5,64: of "
        "each method."
    ),
]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A parameter of the method (of several: clse.cutoff=0.2); repeatable.",
    ),
]
BudgetOption = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="nominal|true",
        help="What --keep counts: as published, or the average over all layers, within half a "
        "token.",
    ),
]
OnErrorOption = Annotated[
    str,
    typer.Option(
        "--on-error",
        metavar="stop|skip",
        help="At a question that cannot be asked (a broken image, a line that is no JSON): stop, "
        "or skip it and say at the end how many and why.",
    ),
]


def meaning_of(budget: str) -> Meaning:
    """What ``--budget`` says.

    Raises:
        BadInput: something else.
    """
    if budget == "nominal":
        return "nominal"
    if budget == "true":
        return "true"
    raise BadInput(f"--budget {budget!r}: choose nominal or true")
