"""How a transformers server runs requests, and what becomes of those that prunus refuses.

Refusals arise in the thread that generates. A request that waits for its whole answer is given
them; a stream would begin as if all was well, so that here its first piece is waited for.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from threading import Event
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from transformers.cli.serving.utils import GenerateManager, GenerationState, _StreamError

from prunus.errors import PrunusError, brief, one_line
from prunus.serving.films import check_wishes
from prunus.serving.messages import check_body, check_messages
from prunus.serving.usage import counted, with_counts

if TYPE_CHECKING:
    from prunus.serving.models import Models

log = logging.getLogger(__name__)

Say = Callable[[str], None]
#: What processors and templates raise of requests that do not fit, before anything is generated.
_MISFITS = (ValueError, TypeError, LookupError, AttributeError, TemplateError)


class Pieces:
    """What is streamed of one answer, as the server's own queue has it, but an exception of the
    thread that generates is raised here, and the end (None) comes when that thread is done;
    ``begun`` once the first piece, or an exception, is there."""

    def __init__(self, queue: Any, watched: Watched) -> None:
        self._queue, self._watched = queue, watched
        self._last: list[Any] = []
        self.begun = False

    async def get(self) -> Any:
        """The next piece.

        Raises:
            Exception: what generating raised.
        """
        item = self._last[0] if self._last else await self._queue.get()
        self.begun = True
        if isinstance(item, _StreamError):
            raise self._watched.error or RuntimeError(item.msg)
        if item is None:
            await asyncio.to_thread(self._watched.done.wait)
        return item

    def get_nowait(self) -> Any:
        """The next piece if it is there, and is none that ends the stream: first goes what came
        before it.

        Raises:
            asyncio.QueueEmpty: there is none.
        """
        if self._last:
            raise asyncio.QueueEmpty
        item = self._queue.get_nowait()
        if item is None or isinstance(item, _StreamError):
            self._last = [item]
            raise asyncio.QueueEmpty
        return item


class Watched:
    """A model of which one request sees ``generate``: what that raises is remembered, and what it
    kept is said and remembered; ``done`` when it has returned."""

    def __init__(self, model: Any, models: Models, say: Say) -> None:
        self._model, self._models, self._say = model, models, say
        self.error: Exception | None = None
        self.tokens: dict[str, Any] | None = None
        self.done = Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Of the model; runs in the thread that generates."""
        run = self._models.run
        try:
            found = self._model.generate(*args, **kwargs)
        except PrunusError as error:
            self.error = error
            self._say(f"refused: {one_line(error)}")
            raise
        except Exception as error:
            self.error = error
            raise
        else:
            if run is not None:
                self.tokens = run.report()["tokens"]
                self._say(_kept(self.tokens))
            return found
        finally:
            self.done.set()


def _kept(tokens: Mapping[str, Any]) -> str:
    if not tokens["original"]:
        return "no image: nothing to prune"
    return (
        f"visual tokens {tokens['original']:g} -> {tokens['kept']:g} at the last layer, "
        f"{tokens['average']:.1f} per layer"
    )


_watched: ContextVar[list[Watched]] = ContextVar("prunus_watched")
_streamed: ContextVar[list[Pieces]] = ContextVar("prunus_streamed")


class Requests(GenerateManager):  # type: ignore[misc]
    """One request after the other, each in ``generate`` of the pruned model."""

    def __init__(self, models: Models, say: Say) -> None:
        super().__init__()
        self._models, self._say = models, say

    def generate_streaming(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        watched = self._watch(model)
        queue, streamer = super().generate_streaming(watched, *args, **kwargs)
        pieces = Pieces(queue, watched)
        _streamed.get([]).append(pieces)
        return pieces, streamer

    async def generate_non_streaming(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().generate_non_streaming(self._watch(model), *args, **kwargs)

    def _watch(self, model: Any) -> Watched:
        watched = Watched(model, self._models, self._say)
        _watched.get([]).append(watched)
        return watched


class State(GenerationState):  # type: ignore[misc]
    """What runs the requests of a server: :class:`Requests` for its model."""

    def __init__(self, say: Say, **options: Any) -> None:
        super().__init__(**options)
        self._say = say
        self.models: Models | None = None

    def get_manager(self, model_id: str, use_cb: bool = False) -> Any:
        if model_id not in self._generate_managers and self.models is not None:
            self._generate_managers[model_id] = Requests(self.models, self._say)
        return super().get_manager(model_id, use_cb=use_cb)


class Refusing:
    """A handler of the server that answers by an error where prunus refuses, streams as well, and
    whose answers say what was kept."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        resolve = getattr(handler, "_resolve_model", None)
        prompt_of = getattr(handler, "get_processor_inputs_from_messages", None)
        self._chats = "ChatCompletion" in type(handler).__name__
        if resolve is None or prompt_of is None:  # it has no prompts
            return
        processors: list[Any] = []

        def resolved(*args: Any, **kwargs: Any) -> Any:
            found = resolve(*args, **kwargs)
            processors[:] = found[-1:]  # of the one model that there is
            return found

        def checked(messages: Any, *args: Any, **kwargs: Any) -> Any:
            check_messages(messages, processors[0])
            return prompt_of(messages, *args, **kwargs)

        handler._resolve_model = resolved
        handler.get_processor_inputs_from_messages = checked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    async def handle_request(self, *args: Any) -> Any:
        """Of the handler.

        Raises:
            PrunusError: the request is refused.
        """
        for body in args[:1]:
            check_body(body, self._chats)
            if isinstance(body, dict):
                check_wishes(body.get("chat_template_kwargs"))
        own: list[Pieces] = []
        watched: list[Watched] = []
        tokens = _streamed.set(own), _watched.set(watched)
        try:
            response = await self._handler.handle_request(*args)
        except _MISFITS as error:
            if watched or isinstance(error, PrunusError):
                raise  # of the model, or said already
            raise PrunusError(
                f"no prompt can be made of this request: {type(error).__name__}: {brief(error)}"
            ) from error
        finally:
            _streamed.reset(tokens[0])
            _watched.reset(tokens[1])
        if own:
            pieces = await begun(response.body_iterator, lambda: own[0].begun)
            response.body_iterator = counted(pieces, lambda: watched[0].tokens)
        elif watched and watched[0].tokens is not None:
            with_counts(response, watched[0].tokens)
        return response


async def begun(
    pieces: AsyncGenerator[str, None], is_begun: Callable[[], bool]
) -> AsyncGenerator[str, None]:
    """The same stream, as soon as generating has begun: what is refused before is raised here, what
    goes wrong later ends the stream with an error that OpenAI's clients raise."""
    heads: list[str] = []
    async for piece in pieces:
        heads.append(piece)
        if is_begun():
            break
    return _rejoined(heads, pieces)


async def _rejoined(
    heads: list[str], pieces: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    try:
        for head in heads:
            yield head
        async for piece in pieces:
            yield piece
    except Exception as error:
        if not isinstance(error, PrunusError):
            log.exception("a stream broke off")
        yield f"data: {json.dumps(refusal(error))}\n\n"
    finally:
        await pieces.aclose()  # a client that left: generating ends


def refusal(error: Exception) -> dict[str, Any]:
    """An error in the form that OpenAI's clients know."""
    refused = isinstance(error, PrunusError)
    kind = "invalid_request_error" if refused else "server_error"
    message = one_line(error)
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
