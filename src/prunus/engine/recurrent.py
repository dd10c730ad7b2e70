"""Layers that have a state instead of keys and values (linear attention): what they cannot give.

Such a layer reads one token after the other into a state of fixed size. A cut at its input, or
before, is a shorter sequence to it, and exact. But nobody's weights can be looked at or edited, and
what was read cannot be taken out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prunus.errors import PrunusError
from prunus.method import Cut, EditsAttention, Method


def check_recurrent(
    recurrent: frozenset[int],
    depth: int,
    methods: Sequence[Method],
    cuts: Sequence[tuple[Method, Cut]],
) -> None:
    """Raise PrunusError if something is asked of a layer in ``recurrent`` that it cannot give.

    Args:
        depth: decoder layers that run.
        cuts: all stages of ``methods``.
    """
    others = sorted(set(range(depth)) - recurrent)
    for method, cut in cuts:
        seen = {one.layer for one in cut.sees if one.layer is not None and one.keeps != "states"}
        if wrong := sorted(seen & recurrent):
            raise PrunusError(
                f"{method.name} looks at the attention of layer {wrong[0]}, which has linear "
                f"attention: there are no weights to look at. Choose among the layers that have "
                f"some ({_numbers(others)}), or a method that looks at no attention"
            )
        earlier = [layer for layer in sorted(recurrent) if layer < (cut.layer or 0)]
        if cut.trim_cache and earlier:
            raise PrunusError(
                f"{method.name} takes what it drops at layer {cut.layer} out of the caches of the "
                f"layers before, but layer {earlier[0]} has linear attention: its state has read "
                "these tokens and cannot forget them. Leave those caches alone "
                "(trim_cache=False), or cut at an earlier layer"
            )
    for method in methods:
        if not isinstance(method, EditsAttention):
            continue
        if wrong := sorted(set(method.edits(depth)) & recurrent):
            raise PrunusError(
                f"{method.name} edits the attention of layer {wrong[0]}, which has linear "
                "attention: no weight of it says who sees whom. Choose among the layers "
                f"{_numbers(others)}"
            )
        if wrong := sorted(set(method.forgets(depth)) & recurrent):
            raise PrunusError(
                f"{method.name} takes visual tokens out of the cache of layer {wrong[0]}, which "
                "has linear attention: its state has read them and cannot forget them. Choose "
                f"among the layers {_numbers(others)}"
            )


def _numbers(layers: Iterable[int]) -> str:
    return ", ".join(map(str, layers)) or "none"
