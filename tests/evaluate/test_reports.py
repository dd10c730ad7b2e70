"""A report of each sample of a batch is that of the sample alone."""

from typing import Any

import pytest

import prunus
from prunus.evaluate import EvalSet
from prunus.inference.batches import Vision, encode, left_padded
from prunus.method import make_method

NAMES = ["clse@released", "evoprune", "visipruner@middle-deep"]


@pytest.mark.parametrize("name", NAMES)
def test_reports_are_those_of_samples_alone(tiny: Any, questions: EvalSet, name: str) -> None:
    model, processor = tiny
    method = make_method(name, {})
    vision = Vision(model)
    rows = []
    for number in (0, 4, 9):
        query = questions.queries[number]
        rows.append(encode(processor, number, query.text, questions.images[query.image]()))

    def asked(some: list[Any], batch: bool) -> Any:
        inputs = left_padded([one.ids for one, _ in some], 0)
        inputs |= vision.inputs(vision.prepare([own for _, own in some]), in_tower=True)
        with prunus.prune(model, method) as run:
            model.generate(**inputs, max_new_tokens=1, do_sample=False)
        return run.reports() if batch else run.report()

    together = asked(rows, batch=True)
    assert len(together) == 3
    assert len({report["flops"]["dense"]["llm"] for report in together}) > 1  # of other lengths
    for own, row in zip(together, rows, strict=True):
        alone = asked([row], batch=False)
        for key in ("samples", "idle", "tokens", "kv_bytes", "stages", "visual_attention"):
            assert own[key] == alone[key], key
        assert own["flops"]["pruned"]["llm"] == pytest.approx(alone["flops"]["pruned"]["llm"])
