"""Where a prompt ends is told, and no answer gets into a choice without a word."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

import prunus
from prunus import CLSE, PromptEndWarning, Uniform, VisiPruner
from tests.support.models import Case
from tests.support.pages import blocks
from tests.support.runs import gap, plain

SEEING = CLSE(keep=5, variant="hybrid")
TAIL = 2  # tokens of the answer


def answered(case: Case) -> list[dict[str, Any]]:
    """One prompt with two different answers behind it."""
    first = case.prompts.rows(1, 2)
    second = {**first, "input_ids": first["input_ids"].clone()}
    second["input_ids"][:, -TAIL:] = torch.tensor([40, 41])
    return [first, second]


def labels_of(inputs: dict[str, Any]) -> torch.Tensor:
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -TAIL:] = inputs["input_ids"][:, -TAIL:]
    return labels


def kept(run: prunus.Run) -> list[list[int]]:
    return [image.tolist() for entry in run.trace for sample in entry.kept for image in sample]


def told_labels(run: prunus.Run, inputs: dict[str, Any]) -> None:
    run.prompt_ends(labels=labels_of(inputs))


def told_last(run: prunus.Run, inputs: dict[str, Any]) -> None:
    run.prompt_ends([inputs["input_ids"].shape[1] - TAIL - 1] * 2)


def told_from_the_end(run: prunus.Run, inputs: dict[str, Any]) -> None:
    run.prompt_ends(-TAIL - 1)


@pytest.mark.parametrize("tell", [told_labels, told_last, told_from_the_end])
@pytest.mark.parametrize(
    "method", [SEEING, VisiPruner(layer_threshold=2, relative=0.2, shallow_layers=1)]
)
def test_the_answer_is_not_looked_at(case: Case, method: Any, tell: Any) -> None:
    first, second = answered(case)
    with prunus.prune(case.model, method) as run, warnings.catch_warnings():
        warnings.simplefilter("error")
        plain(case.model, {**first, "labels": labels_of(first)})
        expected = kept(run)
        for inputs in (first, second):
            tell(run, inputs)
            plain(case.model, inputs)
            assert kept(run) == expected


def test_it_is_told_for_one_call(llava: Case) -> None:
    first, _ = answered(llava)
    with prunus.prune(llava.model, SEEING) as run:
        told_labels(run, first)
        plain(llava.model, first)
        with pytest.warns(PromptEndWarning, match=r"run\.prompt_ends"):
            plain(llava.model, first)


def test_nobody_says_it(llava: Case) -> None:
    """A word the first time; none for generate(), for methods that do not look, or when told."""
    first, _ = answered(llava)
    with prunus.prune(llava.model, SEEING) as run:
        with pytest.warns(PromptEndWarning):
            plain(llava.model, first)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain(llava.model, first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with prunus.prune(llava.model, SEEING) as run:
            llava.model.generate(**first, max_new_tokens=2)
            run.prompt_ends()
            plain(llava.model, first)
        with prunus.prune(llava.model, SEEING), torch.no_grad():
            llava.model(**first, logits_to_keep=1)
        with prunus.prune(llava.model, Uniform(keep=5)):
            plain(llava.model, first)


def test_in_training_it_must_be_said(llava: Case) -> None:
    first, _ = answered(llava)
    model = llava.model.train()
    with prunus.prune(model, SEEING) as run:
        with pytest.raises(prunus.PrunusError, match=r"labels to the model, or call run\.prompt_"):
            model(**first)
        told_labels(run, first)
        model(**first).logits.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"last": [1, 2, 3]}, "3 positions.*2 rows"),
        ({"last": 1000}, "rows have"),
        ({"last": 0}, "rows have"),  # row 0 is padded there
        ({"last": [1.5, 2.0]}, "one index"),
        ({"last": True}, "one index"),
        ({"last": "end"}, "one index"),
        ({"last": 3, "labels": torch.zeros(2, 5)}, "not both"),
        ({"labels": [1, 2]}, "tensor"),
        ({"labels": torch.zeros(2, 5, dtype=torch.long)}, "labels of shape"),
    ],
)
def test_what_is_told_must_fit(llava: Case, arguments: dict[str, Any], words: str) -> None:
    first, _ = answered(llava)
    with prunus.prune(llava.model, SEEING) as run:

        def call() -> None:
            run.prompt_ends(**arguments)
            plain(llava.model, first)

        with pytest.raises(prunus.PrunusError, match=words):
            call()


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def test_a_trainer_with_label_smoothing(llava: Case, tmp_path: Path) -> None:
    """The recipe as it is printed: labels are taken away before the model is called."""
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(blocks("docs/training.md")[0], "docs/training.md", "exec"), names)
    one = llava.prompts.rows(1)
    rows = []
    for answer in ((40, 41), (50, 51)):
        ids = one["input_ids"][0].clone()
        ids[-TAIL:] = torch.tensor(answer)
        labels = torch.full_like(ids, -100)
        labels[-TAIL:] = ids[-TAIL:]
        rows.append(
            {
                "input_ids": ids,
                "attention_mask": one["attention_mask"][0],
                "pixel_values": one["pixel_values"][0],
                "labels": labels,
            }
        )
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        label_smoothing_factor=0.1,
        per_device_train_batch_size=2,
        max_steps=3,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = names["PrunedTrainer"](
        llava.model, arguments, data_collator=collate, train_dataset=rows
    )
    before = llava.model.lm_head.weight.detach().clone()
    with prunus.prune(llava.model, SEEING) as run:
        trainer.run = run
        result = trainer.train()
        assert kept(run)[0] == kept(run)[1]  # one prompt, two answers, one choice
    assert result.global_step == 3 and gap(llava.model.lm_head.weight, before) > 0
