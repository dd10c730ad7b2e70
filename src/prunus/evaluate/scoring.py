"""When an answer is right: exact match, whatever its case, punctuation, articles and spaces."""

from __future__ import annotations

import string

# Hyphens and slashes part words; every other sign goes without a trace ("5." is "5").
_SIGNS = str.maketrans({sign: " " if sign in "-/_" else "" for sign in string.punctuation})
_ARTICLES = frozenset({"a", "an", "the"})


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces.

    A text that consists of articles alone is kept: option letters are answers, too.
    """
    words = text.lower().translate(_SIGNS).split()
    kept = [word for word in words if word not in _ARTICLES]
    return " ".join(kept or words)


def is_right(answer: str, truth: str) -> bool:
    """Whether ``answer`` equals ``truth`` once both are normalised."""
    return normalise(answer) == normalise(truth)
