"""docs/benchmarks.md speaks of the lmms-eval that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()


@pytest.fixture(scope="module")
def known() -> list[str]:
    from lmms_eval.tasks import TaskManager

    return list(TaskManager("WARNING").all_tasks)


def test_its_tasks_are_there(known: list[str]) -> None:
    table = PAGE.partition("| benchmark |")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) >= 10
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert len(named) > 15 and named <= set(known), named - set(known)


def test_its_task_with_ocr_tokens_is_textvqa_with_them(tmp_path: Path) -> None:
    import lmms_eval
    from lmms_eval.utils import load_yaml_config

    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    place = Path(lmms_eval.__file__).parent
    path = tmp_path / "textvqa_val_ocr.yaml"
    path.write_text(block.replace("/path/to/site-packages/lmms_eval", str(place)))
    config = load_yaml_config(str(path), mode="full")
    assert config["task"] == "textvqa_val_ocr" and config["test_split"] == "validation"
    words = config["lmms_eval_specific_kwargs"]["default"]
    doc = {"question": "what is it?", "ocr_tokens": ["EXIT", "12"]}
    assert "OCR token: EXIT, 12" in config["doc_to_text"](doc, words)
    assert "OCR" not in config["doc_to_text"](doc, {**words, "ocr": False})


def test_a_choice_is_made_by_the_smallest_value() -> None:
    """Why a loss is given: should a later lmms-eval take the largest, this tells."""
    import inspect

    from lmms_eval.api.task import ConfigurableTask

    code = inspect.getsource(ConfigurableTask.process_results)
    assert "pred = np.argmin(lls)" in code and "np.argmax(lls)" not in code
