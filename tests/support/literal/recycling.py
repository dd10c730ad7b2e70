"""Raters and recycling of SparseVLM and its relatives, read literally."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.support.literal.clse import best
from tests.support.literal.density import literal_peaks
from tests.support.literal.inside import behind, softmax
from tests.support.oracles.layered import Line


def literal_raters(line: Line, places: list[int], spots: list[list[int]]) -> list[int]:
    """Words to which the image's tokens are more alike than to the mean word, at the input."""
    tokens, states = line.maps[0][1], line.entered[0]
    words = behind(line, tokens, places, spots)
    there = [place for place in places if place in line.tokens]
    shares = [0.0] * len(words)
    for place in there:
        one = states[tokens.index(place)]
        alike = softmax([float(one @ states[tokens.index(word)]) for word in words])
        shares = [a + b / len(there) for a, b in zip(shares, alike, strict=True)]
    mean = sum(shares) / len(shares)
    return [w for w, s in zip(words, shares, strict=True) if s > mean] or words


def literal_recycled(
    line: Line, rest: list[int], of: dict[int, float], clusters: int | None = None
) -> tuple[list[int], dict[int, Tensor]]:
    """The best of the places ``rest``, by scores ``of`` them, in clusters: their peaks from the
    best on, and the means that stand there. Fewer ``clusters`` than there would be take fewer."""
    taken = int(0.3 * len(rest)) + 1
    while clusters is not None and int(taken / 10) + 1 > clusters:
        taken -= 1
    if taken <= 0:
        return [], {}
    again = [rest[slot] for slot in best([of[place] for place in rest], taken)]
    states = {place: line.states[line.tokens.index(place)] for place in again}
    peaks, owner = literal_peaks([states[p].tolist() for p in again], int(taken / 10) + 1)
    made = {}
    for number, peak in enumerate(peaks):
        own = [states[p] for p, o in zip(again, owner, strict=True) if o == number]
        made[again[peak]] = sum(own[1:], own[0]) / len(own)
    return [again[peak] for peak in peaks], made


def literal_rest(
    line: Line,
    spots: list[list[int]],
    chosen: list[tuple[list[int], list[int], dict[int, Tensor]]],
    closing: bool,
) -> list[list[int]]:
    """Go on with what was ``chosen`` of each image: the places that are kept, those of peaks, and
    the states of these; ``closing``: peaks behind, and positions closed up. Returns what is left
    of each image, ascending indices among its original tokens."""
    read, states = list(line.tokens), dict(zip(line.tokens, line.states, strict=True))
    found = []
    for places, (kept, peaks, made) in zip(spots, chosen, strict=True):
        first = read.index(next(place for place in read if place in places))
        rest = [token for token in read if token not in places]
        stays = kept + peaks if closing else sorted(kept + peaks)
        read = rest[:first] + stays + rest[first:]
        states |= made
        found.append(sorted(places.index(place) for place in kept + peaks))
    line.go_on(read, torch.stack([states[token] for token in read]))
    line.closed = line.closed or closing
    return found
