"""``transformers serve`` with a pruned model: its server, its requests, its options.

It has no place to plug into, so that for the time of starting it three of its names stand for what
is derived from them here: what loads models, what runs requests, and what puts the server together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import transformers

from prunus.errors import PrunusError, brief
from prunus.serving.models import Models, Served
from prunus.serving.requests import Refusing, Say, State, refusal

#: Options of the server that a pruned model cannot have.
_CONTINUOUS = (
    "continuous batching packs the tokens of several requests into one row of a paged cache, where "
    "layers cannot drop tokens of one of them: leave it out (requests run one after the other)"
)
_COMPILED = (
    "a compiled server decodes from a static cache, whose layers all have the same length: leave "
    "it out"
)


def check_options(continuous_batching: bool, compiled: bool, attention: str | None) -> None:
    """Raise PrunusError for what cannot be had of a pruned model."""
    if continuous_batching:
        raise PrunusError(f"--continuous-batching: {_CONTINUOUS}")
    if compiled:
        raise PrunusError(f"--compile: {_COMPILED}")
    if attention is not None and attention.startswith("paged"):
        raise PrunusError(f"--attn-implementation {attention}: {_CONTINUOUS}")


def serve(served: Served, say: Say, **options: Any) -> Any:
    """Run transformers' server for ``served`` until it is told to end.

    Args:
        served: the model and what prunes it.
        say: is told of each request what was kept, or why it was refused.
        options: of ``transformers.cli.serve.Serve`` (``host``, ``port``, ``enable_cors`` ...); with
            ``non_blocking=True`` the server runs in a thread, and is returned at once.

    Raises:
        PrunusError: the model cannot be loaded or pruned, packages are missing, or the server of
            this transformers is another than is known here.
    """
    check_installed()
    from transformers.cli.serve import Serve

    with _put_together(served, say):
        return Serve(force_model=served.name, **options)


def check_installed() -> None:
    """Raise PrunusError where what transformers' server needs is missing."""
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise PrunusError(
            "transformers' server needs fastapi, uvicorn and openai: pip install 'prunus[serve]'"
        )


@contextmanager
def _put_together(served: Served, say: Say) -> Iterator[None]:
    """Inside, a server of transformers is made of parts that serve a pruned model."""
    from transformers.cli.serving import model_manager, server, utils

    plain = {
        (model_manager, "ModelManager"): partial(Models, served),
        (utils, "GenerationState"): partial(State, say),
        (server, "build_server"): partial(_build, getattr(server, "build_server", None)),
    }
    before = {(module, name): getattr(module, name, None) for module, name in plain}
    if lacking := [name for (_, name), there in before.items() if there is None]:
        raise PrunusError(
            f"the server of transformers {transformers.__version__} has no {', '.join(lacking)}: "
            "prunus knows that of 5.19 to 5.24"
        )
    try:
        for (module, name), part in plain.items():
            setattr(module, name, part)
        yield
    finally:
        for (module, name), there in before.items():
            setattr(module, name, there)


def _build(plain: Any, models: Any, *handlers: Any, **parts: Any) -> Any:
    """The server's application, whose refusals are errors of HTTP (400)."""
    from fastapi.responses import JSONResponse

    parts["generation_state"].models = models
    guarded = {
        name: Refusing(part) if hasattr(part, "handle_request") else part
        for name, part in parts.items()
    }
    app = plain(models, *(Refusing(one) for one in handlers), **guarded)

    @app.exception_handler(PrunusError)  # type: ignore[untyped-decorator]
    async def refused(_request: Any, error: PrunusError) -> JSONResponse:
        return JSONResponse(refusal(error), status_code=400)

    @app.exception_handler(UnicodeDecodeError)  # type: ignore[untyped-decorator]
    async def unreadable(_request: Any, error: UnicodeDecodeError) -> JSONResponse:
        wrong = PrunusError(f"the request is no UTF-8 text: {brief(error)}")
        return JSONResponse(refusal(wrong), status_code=400)

    return app
