"""Layers that read keys and values of an earlier one (shared caches): what they cannot give.

Such a layer has no keys of its own. It attends to those of the last layer before it that made some
and has its kind of attention: to the tokens that were there then. A cut at or before that layer is
exact: both run on the same tokens, and in the cache stands what both read. Between the two the one
would have to see less than the other wrote, in one cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prunus.errors import PrunusError
from prunus.method import Cut, EditsAttention, Method


def check_readers(
    readers: Mapping[int, int],
    depth: int,
    methods: Sequence[Method],
    cuts: Iterable[tuple[Method, Cut]],
) -> None:
    """Raise PrunusError if something is asked that layers without keys of their own cannot give.

    Args:
        readers: for each such layer the one whose keys it reads; depth: decoder layers that run.
        cuts: all stages of ``methods``.
    """
    for method, cut in cuts:
        if cut.layer is None:
            continue
        torn = [(own, read) for own, read in sorted(readers.items()) if read < cut.layer <= own]
        if torn:
            own, read = torn[0]
            raise PrunusError(
                f"{method.name} drops tokens at decoder layer {cut.layer}, but layer {own} reads "
                f"the keys and values of layer {read} (they share one cache), where these tokens "
                f"still are: cut at layer {min(readers.values())} or before, or before the "
                "language model"
            )
    shared = {*readers, *readers.values()}
    for method in methods:
        if not isinstance(method, EditsAttention):
            continue
        if wrong := sorted(set(method.forgets(depth)) & shared):
            raise PrunusError(
                f"{method.name} takes visual tokens out of the cache of layer {wrong[0]}, which "
                f"shares it with others (layers {', '.join(map(str, sorted(shared)))}): choose "
                "layers that have a cache for themselves"
            )
