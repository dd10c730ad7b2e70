"""``prunus serve vllm``: vLLM's own server with a pruned model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.console import err
from prunus.cli.options import BudgetOption, meaning_of

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}


def vllm(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Built-in name, local folder or Hugging Face id: the model served."),
    ],
    method: Annotated[
        str,
        typer.Option(help="One that acts before the language model: docs/vllm.md has the list."),
    ],
    keep: Annotated[
        str | None,
        typer.Option(
            help="Visual tokens per image or video: 64 is a count, 0.25 a share; 0.5,64: of each."
        ),
    ] = None,
    budget: BudgetOption = "nominal",
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the method (of several: tome.keep=0.5); repeatable.",
        ),
    ] = None,
) -> None:
    """Start vLLM's own server (OpenAI's API) with a pruned model.

    All other options are those of `vllm serve`, such as --port 8000 or --max-model-len 4096.
    The number of prompt tokens in each response's usage is what was left.
    """
    from prunus.builtin import BUILTIN
    from prunus.vllm.folder import config_of, depth_of, family_named, write_builtin
    from prunus.vllm.serving import arguments, run
    from prunus.vllm.setting import Setting
    from prunus.vllm.versions import check_vllm

    setting = Setting(method, keep, tuple(param or ()), meaning_of(budget))
    version = check_vllm()
    more = list(context.args)
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        if model in BUILTIN:
            if not any(one.partition("=")[0] == "--served-model-name" for one in more):
                more += ["--served-model-name", model]
            model = str(write_builtin(model, Path(folder) / model))
        config = config_of(model)
        methods = " + ".join(map(repr, setting.methods(depth_of(config))))
        argv = arguments(model, family_named(model, config), setting, more)
        err().print(
            f"prunus: vLLM {version} serves {model}, pruned by {methods}, budget {setting.budget}",
            markup=False,
            soft_wrap=True,
        )
        run(argv)
