"""``prunus serve``: servers of others with a pruned model. One file for each of them."""

from __future__ import annotations

import typer

from prunus.cli import serve_transformers, serve_vllm

app = typer.Typer(help="Serve a pruned model, by a server that you know.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keeps each server a subcommand, however few there are."""


app.command("transformers")(serve_transformers.transformers)
app.command("vllm", context_settings=serve_vllm.CONTEXT)(serve_vllm.vllm)
