"""Help that fills the width of a terminal, and of which nothing is cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from rich.text import Text

from prunus.cli.console import out
from prunus.cli.options import MOST

#: Signs of names, at most, beside which their help stands; below longer ones.
_NAMES = 29
_LEAST = 30  # signs of a line, however narrow a terminal is


def flowing(command: Any) -> Any:
    """``command``, and those in it, with help that fills the width: what typer shows in a table has
    columns so narrow that it cuts words off in them."""

    def format_help(ctx: Any, formatter: Any) -> None:
        console = out()
        width = max(console.width, _LEAST)
        with console.capture() as captured:
            for line in _lines(command, ctx, width):
                console.print(line, soft_wrap=True)
        formatter.write(captured.get())

    command.format_help = format_help
    for one in getattr(command, "commands", {}).values():
        flowing(one)
    return command


def _lines(command: Any, ctx: Any, width: int) -> Iterator[Text]:
    usage = command.collect_usage_pieces(ctx)
    call = " ".join((ctx.command_path, *usage))
    yield from map(Text, _wrapped(f"Usage: {call}", width, "  "))
    for paragraph in (command.help or "").split("\n\n"):
        yield Text()
        yield from map(Text, _wrapped(paragraph, width))
    given: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Commands": []}
    for one in command.get_params(ctx):
        if (record := one.get_help_record(ctx)) is not None:
            kind = "Arguments" if one.param_type_name == "argument" else "Options"
            given[kind].append((record[0].replace(" range>", ">"), _plain(record[1])))
    if hasattr(command, "list_commands"):
        for name in command.list_commands(ctx):
            told = command.get_command(ctx, name).help or ""
            given["Commands"].append((name, " ".join(told.split("\n\n")[0].split())))
    for title, rows in given.items():
        if rows:
            yield from (Text(), Text(f"{title}:", "bold"), *_table(rows, width))


def _plain(told: str) -> str:
    """Help with limits in words: of the largest that there is nothing."""
    told = re.sub(rf"([\d.]+)<=x<={MOST}\b", r"from \1", told)
    return re.sub(r"([\d.]+)<=x<=([\d.]+)", r"from \1 to \2", told).replace("  [", " [")


def _table(rows: Sequence[tuple[str, str]], width: int) -> Iterator[Text]:
    """Names, and beside them what they are."""
    side = min(_NAMES, width // 2 - 4, max(len(name) for name, _ in rows)) + 4
    for name, told in rows:
        help_lines = _wrapped(told, width - side)
        first = Text("  ").append(name, "bold cyan")
        if len(name) + 4 > side:
            yield first
        elif help_lines:
            yield first.append(" " * (side - len(first)) + help_lines.pop(0))
        else:
            yield first
        yield from (Text(" " * side + line) for line in help_lines)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines whose words are whole, be they wider than ``width``: names are there to be copied."""
    return wrap(
        text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
