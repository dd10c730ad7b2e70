"""A setting of the page as Python and as a command, to be pasted: both run as they are."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from prunus.inference.named import NONE, parse
from prunus.inference.params import parse_keep, parse_params
from prunus.web.setting import Setting
from prunus.web.source import Prompt

Options = Sequence[tuple[str, str]]


def command(model: str, options: Options, prompt: Prompt, setting: Setting, tokens: int) -> str:
    """``prunus run ...``; ``options`` of loading the model come with it."""
    source, sampling = prompt.source, prompt.sampling
    words = ["prunus", "run"]
    words += source.names if source.kind == "image" else ["--video", *source.names]
    if source.kind == "video" and sampling.most is not None:
        words += ["--max-frames", str(sampling.most)]
    words += [f"--prompt={prompt.question}", "--model", model, "--method", setting.method]
    words += ["--keep", setting.keep] if setting.keep is not None else []
    for param in setting.params:
        words += ["--param", param]
    words += ["--budget", "true"] if setting.budget == "true" else []
    words += ["--max-new-tokens", str(tokens)]
    for name, value in options:
        words += [name, value]
    return shlex.join(words)


def python(model: str, options: Options, prompt: Prompt, setting: Setting, tokens: int) -> str:
    """The same in Python, with ``prunus.prune``.

    Raises:
        PrunusError: the setting names no method, or parameters that it has not.
    """
    source, sampling = prompt.source, prompt.sampling
    video = source.kind == "video"
    imports = {"prunus.inference.inputs": "placed, process"}
    imports["prunus.families"] = "family_of"
    imports["prunus.inference.prompts"] = "build_prompt"
    if video:
        imports["prunus.inference.sampling"] = "Sampling"
        imports["prunus.inference.videos"] = "open_videos"
        taken = "" if sampling.most is None else f"most={sampling.most}"
        paths = ", ".join(f"Path({name!r})" for name in source.names)
        shown = f"videos = open_videos([{paths}], Sampling({taken}))"
        counts, given = "0, len(videos)", "videos=videos"
    else:
        imports["prunus.inference.pictures"] = "open_pictures"
        shown = f"images = open_pictures({source.names!r})"
        counts, given = "len(images)", "images=images"
    pruning, more = _pruning(setting)
    imports |= more
    loading = "".join(f", {name.removeprefix('--')}={value!r}" for name, value in options)
    generate = f"model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)"
    body = (
        [f"output = {generate}"]
        if pruning is None
        else [f"with {pruning} as run:", f"    output = {generate}"]
    )
    lines = [
        *(["from pathlib import Path", ""] if video else []),
        "import prunus",
        *(f"from {module} import {names}" for module, names in sorted(imports.items())),
        "",
        f"model, processor = prunus.load({model!r}{loading})",
        shown,
        f"text = build_prompt(processor, {prompt.question!r}, {counts})",
        f"inputs = process(processor, text, {given}, family=family_of(model))",
        "inputs = placed(inputs, model.device, model.dtype)",
        *body,
        'answer = output[0, inputs["input_ids"].shape[1] :]',
        "print(processor.decode(answer, skip_special_tokens=True).strip())",
        *([] if pruning is None else ["print(run.report())"]),
    ]
    return "\n".join(lines)


def _pruning(setting: Setting) -> tuple[str | None, dict[str, str]]:
    """The call of ``prunus.prune``, and what it needs; None for the unmodified model."""
    if setting.method == NONE:
        return None, {}
    budget = ', budget="true"' if setting.budget == "true" else ""
    named = parse(setting.method)
    if len(named) > 1 or ":" in named[0].name or ".py:" in setting.method:
        made = f"build_methods({setting.method!r}, {setting.keep!r}, {list(setting.params)!r})"
        return (
            f"prunus.prune(model, {made}{budget})",
            {"prunus.inference.named": "build_methods"},
        )
    values = parse_params(named[0].kind, setting.params)
    if setting.keep is not None:
        values = {"keep": parse_keep(setting.keep), **values}
    params = "".join(f", {name}={value!r}" for name, value in values.items())
    return f"prunus.prune(model, {named[0].name!r}{params}{budget})", {}
