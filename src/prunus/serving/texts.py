"""Where the answer is in what a server decodes."""

from __future__ import annotations

import itertools
from typing import Any

from transformers.cli.serving.utils import get_response_template

from prunus.errors import PrunusError


def find_answers(processor: Any, model: Any) -> None:
    """Let the server find the answers of ``model``.

    For some kinds of model it looks for the text that starts the assistant's turn, among what the
    prompt's tokens decode to, and takes all of the prompt for the answer where that is not found. A
    tokenizer that does not give the text of its prompts back (words, with spaces of its own) is
    told here what the end of its prompts decodes to.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    template = get_response_template(processor, model) or {}
    anchors = template.get("start_anchor")
    if not anchors:
        return
    decoded = [_decoded(processor, tokenizer, question) for question in ("a", "is it there ?")]
    if any(one in decoded[0] for one in ([anchors] if isinstance(anchors, str) else anchors)):
        return
    pairs = zip(*(reversed(text) for text in decoded), strict=False)
    shared = [one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
    if not shared:
        raise PrunusError(
            "the server cannot tell where answers begin: the prompts of this chat template end in "
            "nothing that they have in common"
        )
    tokenizer.response_template = {**template, "start_anchor": "".join(reversed(shared))}


def _decoded(processor: Any, tokenizer: Any, question: str) -> str:
    turn = [{"role": "user", "content": [{"type": "text", "text": question}]}]
    prompt = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return str(tokenizer.decode(tokenizer(prompt)["input_ids"]))
