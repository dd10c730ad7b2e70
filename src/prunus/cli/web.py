"""``prunus web``: a page on which methods are tried, in a browser."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from prunus.cli.console import err, print_json, quiet_transformers
from prunus.cli.errors import BadInput
from prunus.cli.options import MOST, AsJson, Device, DType, Model

#: What is compared at first: a method of each kind of place.
_START = ("clse", "divprune")


def web(
    model: Model = "tiny-llava",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="What the page begins with: of one side, or, given twice, of both. A method in a "
            "file (my_file.py:MyMethod) is known to the page if it is named here."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, max=MOST, help="Length of the answers.")
    ] = 32,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")
    ] = 7860,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    as_json: AsJson = False,
    dtype: DType = "auto",
    device: Device = "auto",
) -> None:
    """Open a page to try methods on: two side by side, on your images, videos and questions.

    It runs on this machine alone, until Ctrl-C. Whoever can reach it can have the model asked:
    other addresses than this machine's own are for networks that you trust.
    """
    from prunus.builtin import check_name
    from prunus.cli.loading import check_device, load_model
    from prunus.cli.serve_transformers import check_port
    from prunus.web import serve
    from prunus.web.desk import Desk
    from prunus.web.setting import Setting

    serve.check_installed()
    named = method or []
    if len(named) > 2:
        raise BadInput(f"--method is given {len(named)} times: the page compares two")
    start = [*named, *_START[len(named) :]]
    for one in start:
        Setting.of(one).methods()
    check_name(model)
    check_port(host, port)
    check_device(device)
    quiet_transformers()
    network, processor = load_model(model, dtype, device)
    options = {"--dtype": dtype, "--device": device}
    desk = Desk(
        model,
        network,
        processor,
        tuple((name, value) for name, value in options.items() if value != "auto"),
        tuple(one for one in named if ".py:" in one),
    )
    page = serve.launch(desk, start, max_new_tokens, host, port, browser)
    if as_json:
        print_json({"url": page.local_url, "model": model, "methods": start})
    else:
        err().print(f"prunus: {page.local_url} (Ctrl-C ends it)", markup=False, soft_wrap=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
