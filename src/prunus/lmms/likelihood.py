"""How probable given answers are: the loss of each, as lmms-eval's scores take it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from prunus.compare.desk import figures
from prunus.errors import PrunusError, shown
from prunus.lmms.asking import Prompt, Reply, Respondent


class Scored(NamedTuple):
    """Mean negative log-likelihood of an answer's tokens, whether each is the likeliest, and what
    the prompt cost.

    lmms-eval 0.7 calls it a log-likelihood and takes the choice with the *smallest* value, because
    all of its models give a loss: the sign matters.
    """

    loss: float
    greedy: bool
    reply: Reply


def answer_ids(tokenizer: Any, prompt: str, answer: str) -> Tensor:
    """Token ids ``[n]`` of ``answer`` behind ``prompt``, as they are when both are one text (a
    blank is not doubled where the prompt ends in one).

    Raises:
        PrunusError: there is nothing in it.
    """
    if prompt[-1:].isspace():
        answer = answer.lstrip(" ")
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    if whole[: len(before)] == before:
        found = whole[len(before) :]
    else:  # the border was merged into one token
        found = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not found:
        raise PrunusError(f"the answer {shown(answer)} has no tokens: its loss cannot be told")
    return torch.tensor(found, dtype=torch.int64)


@torch.inference_mode()
def score(respondent: Respondent, prompt: Prompt, answer: str) -> Scored:
    """How probable ``answer`` is behind ``prompt``, under the respondent's method: what it keeps is
    chosen without a look at the answer.

    Raises:
        PrunusError: the method refuses the prompt, or the answer is empty.
    """
    model, parts = respondent.model, prompt.parts
    own = answer_ids(respondent.tokenizer, prompt.text, answer)
    ids = torch.cat([parts.ids, own])[None].to(model.device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name, values in parts.per_token.items():
        inputs[name] = F.pad(values, (0, len(own)))[None].to(model.device)
    inputs |= respondent.pixels([prompt])
    pruned = respondent.prunes and bool(prompt.like)
    began = time.perf_counter()
    with respondent.pruning() if pruned else nullcontext() as run:
        if run is not None:
            run.prompt_ends(len(parts.ids) - 1)
        logits = model(**inputs).logits
        report = respondent.dense(prompt) if run is None else run.report()
    seen = logits[0, len(parts.ids) - 1 : -1].float()
    target = own.to(seen.device)
    loss = F.cross_entropy(seen, target)
    reply = Reply(
        text=answer,
        prompt_tokens=len(parts.ids),
        shows=prompt.shows,
        kind=prompt.kind,
        figures=figures(report),
        seconds=time.perf_counter() - began,
    )
    return Scored(float(loss), bool((seen.argmax(dim=-1) == target).all()), reply)
