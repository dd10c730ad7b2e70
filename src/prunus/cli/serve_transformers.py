"""``prunus serve transformers``: transformers' own server with a pruned model."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunus.cli.console import err, quiet_transformers
from prunus.cli.errors import BadInput
from prunus.cli.options import (
    BudgetOption,
    Device,
    DType,
    KeepOption,
    MethodOption,
    ParamOption,
    meaning_of,
)

if TYPE_CHECKING:
    from prunus.method import Method


def transformers(
    model: Annotated[
        str,
        typer.Argument(help="Built-in name, local folder or Hugging Face id: the model served."),
    ],
    method: MethodOption = "clse",
    keep: KeepOption = None,
    budget: BudgetOption = "nominal",
    param: ParamOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "localhost",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")
    ] = 8000,
    cors: Annotated[
        bool, typer.Option("--enable-cors", help="Take requests of web pages from anywhere.")
    ] = False,
    attention: Annotated[
        str | None,
        typer.Option("--attn-implementation", help="sdpa, eager, flash_attention_2 ..."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--chat-template-kwargs", metavar="JSON", help="For the chat template of every request."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--default-seed", help="Of torch, for answers that are drawn.")
    ] = None,
    continuous_batching: Annotated[
        bool, typer.Option("--continuous-batching", help="Refused: see docs/serving.md.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Refused: see docs/serving.md.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing of single requests.")] = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Start transformers' own server (OpenAI's API) with a pruned model.

    POST /v1/chat/completions, /v1/responses ...: as `transformers serve` has them, one request
    after the other. What prunus refuses is answered with status 400 and the reason.
    """
    from prunus.builtin import check_name
    from prunus.cli.loading import check_device
    from prunus.inference.named import build_methods
    from prunus.serving import transformers as server
    from prunus.serving.models import Served

    server.check_options(continuous_batching, compiled, attention)
    check_template(template)
    chosen, meaning = build_methods(method, keep, param or []), meaning_of(budget)
    if chosen is None and meaning == "true":
        raise BadInput("--method none prunes nothing: leave out --budget, or name a method")
    server.check_installed()
    check_name(model)
    check_port(host, port)
    place = check_device(device)
    quiet_transformers()
    served = Served(model, chosen, meaning, dtype, place, attention)
    console = err()

    def say(line: str) -> None:
        console.print(f"prunus: {line}", markup=False, soft_wrap=True)

    say(told(model, chosen, meaning))
    server.serve(
        served,
        (lambda line: None) if quiet else say,
        host=host,
        port=port,
        enable_cors=cors,
        chat_template_kwargs=template,
        default_seed=seed,
        log_level="error",
    )


def told(model: str, methods: Sequence[Method] | None, meaning: str) -> str:
    """What prunes, in one line."""
    if methods is None:
        return f"{model} is served unmodified: nothing is pruned"
    return f"{model} is pruned by {' + '.join(map(repr, methods))}, budget {meaning}"


def check_template(text: str | None) -> None:
    """Raise BadInput where ``--chat-template-kwargs`` is no JSON object, and PrunusError where it
    asks for what a pruned model's server does not do."""
    from prunus.io.jsons import parse
    from prunus.serving.films import check_wishes

    wishes = {} if text is None else parse(text.encode(), "--chat-template-kwargs")
    if not isinstance(wishes, dict):
        raise BadInput(
            '--chat-template-kwargs: give a JSON object, such as {"enable_thinking": true}'
        )
    check_wishes(wishes)


def check_port(host: str, port: int) -> None:
    """Raise BadInput where nothing can listen on ``port`` of ``host``: before a model is loaded."""
    try:
        known: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadInput(f"--host {host!r} is no address of this machine: {error}") from error
    family, kind, protocol, _, address = known[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(
                    f"--port {port} of {host} is taken: choose another, or 0 for any that is free"
                ) from error
            raise BadInput(f"cannot listen on port {port} of {host}: {error.strerror}") from error
