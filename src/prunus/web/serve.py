"""Starting the page: on one's own machine, with nothing asked of others."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Sequence
from typing import Any

from prunus.errors import PrunusError
from prunus.web.desk import Desk

_LOCAL = "127.0.0.1,localhost,::1"


def check_installed() -> None:
    """Raise PrunusError where Gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise PrunusError(
            "the page needs Gradio: pip install 'prunus[web]', best in an environment of its own "
            "(it brings Pillow below 13)"
        )


def launch(
    desk: Desk, methods: Sequence[str], tokens: int, host: str, port: int, browser: bool
) -> Any:
    """Serve the page in a thread, and return it: ``local_url`` is where, ``close()`` ends it. Port
    0 is any that is free; answers have ``tokens`` tokens at most.

    Raises:
        PrunusError: Gradio is missing.
    """
    check_installed()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it calls home else
    for name in ("NO_PROXY", "no_proxy"):  # Gradio asks itself whether it is there
        known = os.environ.get(name)
        os.environ[name] = _LOCAL if not known else f"{known},{_LOCAL}"
    from prunus.web.look import CSS, theme
    from prunus.web.page import Page

    page = Page(desk, methods, tokens).build()
    page.queue(api_open=False)
    with contextlib.redirect_stdout(io.StringIO()):  # what it says is said by the command
        page.launch(
            server_name=host,
            server_port=port or _free(host),
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            ssr_mode=False,
            footer_links=[],
            theme=theme(),
            css=CSS,
        )
    return page


def _free(host: str) -> int:
    """A port of ``host`` that nothing listens on now."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.bind((host, 0))
        return int(trial.getsockname()[1])
