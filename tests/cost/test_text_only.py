"""Samples without images beside samples with some."""

from __future__ import annotations

import prunus
from prunus import VisiPruner
from tests.support.models import Case
from tests.support.runs import plain


def test_a_papers_figures_are_means_over_samples_with_images(llava: Case) -> None:
    method = VisiPruner(layer_threshold=2, tokens_threshold=0.3, shallow_layers=1)
    inputs = llava.prompts.rows(1, 0)
    figures = []
    for batch in (inputs, llava.prompts.one(inputs, 0, trim=True)):
        with prunus.prune(llava.model, method) as run:
            plain(llava.model, batch)
        figures.append(run.report()["published"]["visipruner"])
    assert figures[0] == figures[1] and figures[0]["of"] > 0
