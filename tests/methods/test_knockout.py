"""What each parameter of the knock-out asks for."""

from __future__ import annotations

from typing import Any

import pytest

from prunus import Edit, Knockout


@pytest.mark.parametrize(
    ("params", "edit"),
    [
        ({}, Edit("cut", "keep")),
        ({"mask": "cross"}, Edit("cut", "keep")),
        ({"mask": "visual"}, Edit("keep", "cut")),
        ({"mask": "both"}, Edit("cut", "cut")),
        ({"mask": "cross", "collapse": True}, Edit("merge", "keep")),
        ({"mask": "both", "collapse": True, "sink": -2}, Edit("merge", "cut", sink=-2)),
        ({"mask": "visual", "renormalise": True}, Edit("keep", "cut", True)),
        ({"mask": "both", "collapse": True, "renormalise": True}, Edit("merge", "cut", True)),
    ],
)
def test_edits(params: dict[str, Any], edit: Edit) -> None:
    method = Knockout(layers=(1, 3), **params)
    assert method.edits(5) == {1: edit, 3: edit}
    assert list(method.cuts(5)) == [] and list(method.forgets(5)) == []
    assert list(Knockout(layers=(1, 3), forget=True, **params).forgets(5)) == [1, 3]


def test_without_a_mask_only_the_cache_forgets() -> None:
    method = Knockout(layers=(0, 2), mask="none", forget=True)
    assert method.edits(5) == {} and list(method.forgets(5)) == [0, 2]
    assert Knockout(layers=4).edits(5) == {4: Edit("cut", "keep")}
    neutral = Knockout(layers=(0, 2), forget=True).neutral()
    assert neutral.edits(5) == {} and list(neutral.forgets(5)) == []


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"layers": (1, 1)}, "named twice"),
        ({"mask": "text"}, "choose cross, visual, both or none"),
        ({"mask": "visual", "collapse": True}, "which mask=visual keeps"),
        ({"mask": "none", "collapse": True}, "which mask=none keeps"),
        ({"collapse": True, "renormalise": True}, "renormalise means nothing"),
    ],
)
def test_what_makes_no_sense(params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Knockout(**params)
