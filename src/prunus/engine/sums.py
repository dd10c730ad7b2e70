"""Sums that come out the same in every run."""

from __future__ import annotations

from torch import Tensor


def add_rows(rows: Tensor, target: Tensor, change: Tensor) -> Tensor:
    """``rows [R, ...]`` plus ``change [S, ...]``, each at its ``target`` (int64 ``[S]``), in place.

    On a GPU ``index_add`` adds in whatever order its threads come, and a last bit decides which
    tokens merge next: there the additions are sorted first.
    """
    if rows.is_cuda:
        return rows.index_put_((target,), change, accumulate=True)
    return rows.index_add_(0, target, change)
