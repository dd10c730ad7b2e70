"""What `pip install` of the wheel gives, in an empty environment and without our constraints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.try_wheel import try_wheel


@pytest.mark.wheel
def test_the_wheel_runs_in_an_empty_environment(tmp_path: Path) -> None:
    seen = try_wheel(tmp_path, own_torch=False)
    assert seen["extras"] == []
    assert seen["kept"] == {"tiny-llava": 9, "tiny-qwen": 9}
