"""Tuning sets have the form of the evaluation sets and share nothing with them."""

from __future__ import annotations

from collections import Counter

import pytest

from prunus.errors import PrunusError
from prunus.tasks.questions import TYPES
from prunus.tasks.sets import BUILTIN_SETS, load_builtin_set, load_tuning_set
from prunus.tasks.video_questions import VIDEO_TYPES


@pytest.mark.parametrize("name", BUILTIN_SETS)
def test_of_the_same_form_and_about_others(name: str) -> None:
    data, again, other = (load_tuning_set(name, number) for number in (0, 0, 1))
    fixed = load_builtin_set(name)
    kinds = VIDEO_TYPES if name == "videos" else TYPES
    assert Counter(query.type for query in data.queries) == dict.fromkeys(kinds, 6)
    assert data.chance == fixed.chance and data.has_scenes
    assert data.queries == again.queries != other.queries
    own = {repr(data.drawn(number)) for number in range(30)}
    for another in (other, fixed):
        there = range(len(another.clips) or len(another.images))
        assert not own & {repr(another.drawn(number)) for number in there}
    first, same = data.seen(1), fixed.seen(1)
    if name != "videos":  # sizes go by the number
        assert first.size == same.size  # type: ignore[union-attr]
    else:
        assert first.frames[0].size == same.frames[0].size  # type: ignore[union-attr]


def test_an_unknown_one() -> None:
    with pytest.raises(PrunusError, match="no tuning set 'scene'"):
        load_tuning_set("scene")
