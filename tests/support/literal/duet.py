"""DUET-VLM's stage behind the vision tower, read literally."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def dueted(
    features: Sequence[Tensor],
    attention: Sequence[float],
    keys: Sequence[Tensor],
    count: int,
    contextual: int,
    summary: Tensor | None,
) -> tuple[list[tuple[str, int]], list[Tensor]]:
    """As :func:`tests.support.literal.visionzip.zipped`: of CLS, dominant and contextual tokens of
    one image, what each is and the patch it was, and features."""
    ranked = sorted(range(len(features)), key=lambda n: (-attention[n], n))
    wanted = count - contextual - (summary is not None)
    pool = sorted(ranked[wanted : wanted + 4 * contextual])
    targets = []
    if contextual:
        targets = pool[:: max(1, len(pool) // contextual)][:contextual]
    names: list[tuple[str, int]] = []
    found: list[Tensor] = []
    if summary is not None:
        names.append(("cls", -1))
        found.append(summary)
    for token in sorted(ranked[:wanted]):
        names.append(("dominant", token))
        found.append(features[token])
    for target in targets:
        members = []
        for other in pool:
            if other in targets:
                continue
            alike = [float(torch.cosine_similarity(keys[other], keys[t], 0)) for t in targets]
            if max(range(len(targets)), key=lambda n: (alike[n], -n)) == targets.index(target):
                members.append(features[other])
        names.append(("contextual", target))
        mean = sum(members[1:], members[0]) / len(members) if members else 0.0
        found.append(features[target] + mean)
    return names, found
