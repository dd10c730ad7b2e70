"""VisionZip (arXiv 2412.04467), read literally."""

from __future__ import annotations

import torch
from torch import Tensor


def zipped(
    features: list[Tensor],
    attention: list[float],
    keys: list[Tensor],
    count: int,
    contextual: int,
    summary: Tensor | None,
) -> tuple[list[tuple[str, int]], list[Tensor]]:
    """``count`` tokens of one image, ``summary`` (CLS) one of them where it is given.

    Returns:
        What each is ("cls", "dominant" or "contextual") and the patch it was (for CLS: -1), in the
        published order; and their features.
    """
    tokens = range(len(features))
    wanted = count - contextual - (summary is not None)
    ranked = sorted(tokens, key=lambda n: (-attention[n], n))
    dominant = sorted(ranked[:wanted])
    rest = [n for n in tokens if n not in dominant]
    targets = []
    if contextual:
        step = max(1, len(rest) // contextual)
        targets = [rest[place] for place in range(0, len(rest), step)][:contextual]
    groups: dict[int, list[Tensor]] = {target: [] for target in targets}
    for other in rest:
        if other in targets or not targets:
            continue
        alike = [float(torch.cosine_similarity(keys[other], keys[t], 0)) for t in targets]
        best = max(range(len(targets)), key=lambda n: (alike[n], -n))
        groups[targets[best]].append(features[other])
    names: list[tuple[str, int]] = []
    found: list[Tensor] = []
    if summary is not None:
        names.append(("cls", -1))
        found.append(summary)
    for token in dominant:
        names.append(("dominant", token))
        found.append(features[token])
    for target, members in groups.items():
        names.append(("contextual", target))
        total = features[target]
        if members:
            total = total + sum(members[1:], members[0]) / len(members)
        found.append(total)
    return names, found


def places(names: list[tuple[str, int]], size: int) -> list[int]:
    """Where the tokens stand in the prompt: their own places, CLS in that of the first token that
    is no survivor."""
    own = {token for _, token in names}
    free = min(token for token in range(size) if token not in own)
    return [free if kind == "cls" else token for kind, token in names]
