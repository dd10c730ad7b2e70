"""What an answer cost, in the places that lmms-eval has for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.models.model_utils.gen_metrics import log_metrics

from prunus.lmms.asking import Reply

#: The name under which each sample's ``token_counts`` say what lmms-eval has no field for.
PRUNUS = "prunus"


@dataclass
class Spent(TokenCounts):
    """Token counts with all that prunus knows of an answer.

    ``input_tokens`` are those that the language model ran on: the text, and the true average of
    visual tokens over its layers.
    """

    reply: Reply | None = None

    @classmethod
    def of(cls, reply: Reply) -> Spent:
        """The counts of one answer."""
        cost = reply.figures
        text = reply.prompt_tokens - cost.get("original", 0)
        ran = round(text + cost.get("average", 0))
        return cls(input_tokens=ran, output_tokens=reply.new_tokens, reply=reply)

    def to_dict(self) -> dict[str, Any]:
        """As it is written into the samples of a run."""
        return {**super().to_dict(), PRUNUS: facts(self.reply) if self.reply else None}


def facts(reply: Reply) -> dict[str, Any]:
    """Plain values of one answer: visual tokens that the prompt has (``visual``), that are ``kept``
    at the last layer, and per layer on ``average``; seconds to the first and the last new token of
    its ``batch``; a digest of all that it ``shows``, and of which ``kind`` that is; all
    ``figures``; the ``error``, if any."""
    return {
        "visual": reply.figures.get("original"),
        "kept": reply.figures.get("kept"),
        "average": reply.figures.get("average"),
        "prompt_tokens": reply.prompt_tokens,
        "ttft": reply.first,
        "e2e": reply.seconds,
        "batch": reply.batch,
        "shows": reply.shows,
        "kind": reply.kind,
        "figures": reply.figures,
        "error": reply.error,
    }


def results_of(replies: Sequence[Reply]) -> list[GenerationResult]:
    """What ``generate_until`` answers, with what all of it cost told to lmms-eval's log: it stands
    under ``throughput`` in the results."""
    fine = [reply for reply in replies if reply.error is None]
    if fine:
        # The seconds of a batch are those of each of its answers.
        seconds = sum(reply.seconds / reply.batch for reply in fine)
        tokens = sum(reply.new_tokens for reply in fine)
        log_metrics(
            total_elapsed_time=seconds,
            total_gen_tokens=tokens,
            avg_speed=tokens / seconds if seconds else 0.0,
            additional_metrics=_means(fine) | {"refused": len(replies) - len(fine)},
        )
    return [GenerationResult(reply.text, Spent.of(reply)) for reply in replies]


def _means(replies: Sequence[Reply]) -> dict[str, float]:
    named: dict[str, list[Any]] = {
        "visual_tokens": [reply.figures.get("original") for reply in replies],
        "kept_tokens": [reply.figures.get("kept") for reply in replies],
        "true_average_tokens": [reply.figures.get("average") for reply in replies],
        "ttft": [reply.first for reply in replies],
        "e2e": [reply.seconds for reply in replies],
    }
    known = {name: [one for one in values if one is not None] for name, values in named.items()}
    return {name: float(np.mean(values)) for name, values in known.items() if values}
