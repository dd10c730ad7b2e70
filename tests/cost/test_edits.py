"""What edited attention saves and costs, against a loop over layers, queries and keys."""

from __future__ import annotations

import pytest

from prunus import Edit
from prunus.cost.edits import edit_work
from prunus.families.shapes import DecoderShape

SHAPE = DecoderShape(layers=4, width=32, heads=4, kv_heads=2, head_dim=8, ffn=64)
TEXT, BEHIND = 11, 7  # seven of eleven text tokens stand behind the image
VISUAL = [9, 9, 5, 0]

EDITS = [
    Edit("cut"),
    Edit("half"),
    Edit("merge"),
    Edit("keep", "cut"),
    Edit("cut", "cut"),
    Edit("merge", "cut"),
    Edit("half", "cut"),
]


def literal(edit: Edit, n: int) -> tuple[int, int, int]:
    """Pairs of a query and a visual key that are not computed; pairs that are computed once more;
    MACs of one pair: a product with a key and one with a value in each head."""
    left_out, again = 0, 0
    lost = n // 2 if edit.text == "half" else n
    if edit.text != "keep":
        for _ in range(BEHIND):
            if edit.renormalise and edit.text != "merge":
                left_out += lost
            else:
                again += n + TEXT  # the whole row
    if edit.visual == "cut":
        for _ in range(n):
            if edit.renormalise:
                left_out += n
            else:
                again += n + TEXT
    return left_out, again, 2 * SHAPE.heads * SHAPE.head_dim


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_equals_the_loop(edit: Edit, renormalise: bool) -> None:
    edit = Edit(edit.text, edit.visual, renormalise)
    for layers in ((0,), (1, 2), (0, 1, 2, 3)):
        work = edit_work(SHAPE, dict.fromkeys(layers, edit), VISUAL, TEXT, BEHIND)
        found = [
            literal(edit, n) if layer in layers else (0, 0, 64) for layer, n in enumerate(VISUAL)
        ]
        assert work.pairs == [left_out for left_out, _, _ in found]
        assert work.saved == sum(left_out * macs for left_out, _, macs in found)
        assert work.spent == sum(again * macs for _, again, macs in found)


def test_no_edit_is_no_work() -> None:
    assert edit_work(SHAPE, {}, VISUAL, TEXT, BEHIND) == (0.0, 0.0, [0.0] * 4)
