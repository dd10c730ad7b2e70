"""What counts as the same answer."""

import pytest

from prunus.evaluate.scoring import is_right, normalise


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("Top  Left.", "top left"),
        ("top-left", "top left"),
        (" a red star ", "red star"),
        ("The", "the"),
        ("A.", "a"),
        ("it's 5!", "its 5"),
        ("", ""),
        ("top\nleft", "top left"),
    ],
)
def test_normalise(text: str, level: str) -> None:
    assert normalise(text) == level


def test_right_means_equal_and_not_containing() -> None:
    assert is_right("Yes.", "yes")
    assert not is_right("yes it is", "yes")
    assert not is_right("", "no")
    assert not is_right("top", "top left")
