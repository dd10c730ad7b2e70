"""What edited attention costs: pairs that are not computed, and rows that are computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prunus.families.shapes import DecoderShape


class EditWork(NamedTuple):
    """MACs that a sample's edited layers ``saved``, and ``spent`` on top of the plain attention;
    ``pairs`` of a query and a visual key, per layer, that were not computed."""

    saved: float
    spent: float
    pairs: list[float]


def edit_work(
    shape: DecoderShape | None,
    edits: Mapping[int, Any],
    visual: Sequence[int],
    text: int,
    behind: int,
) -> EditWork:
    """Work of the :class:`~prunus.method.places.Edit` of each layer in ``edits``.

    Only what is cut before the softmax saves anything. After it, the rows of the queries concerned
    are computed once more, beside the attention of the whole layer.

    Args:
        shape: sizes of the decoder; None where they are not known, and only pairs are counted.
        visual: visual tokens in each decoder layer; text: text tokens of the sample.
        behind: text tokens of the prompt behind the first visual token.
    """
    pairs, saved, spent = [0.0] * len(visual), 0.0, 0.0
    for layer, edit in edits.items():
        n = visual[layer]
        cut = n // 2 if edit.text == "half" else n
        again = 0.0
        for queries, keys, mode in ((behind, cut, edit.text), (n, n, edit.visual)):
            if mode == "keep":
                continue
            if edit.renormalise and mode != "merge":
                pairs[layer] += queries * keys
            else:
                again += queries * (n + text)
        per_pair = 0 if shape is None else shape.mixer(layer).pair
        saved += per_pair * pairs[layer]
        spent += per_pair * again
    return EditWork(saved, spent, pairs)
