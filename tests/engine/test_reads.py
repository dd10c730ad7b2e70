"""How often the CPU has to wait for a GPU: a prompt costs a fixed number of reads, whatever its
batch, and a decode step none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import prunus
from prunus import Method
from tests.support.llava import llava_clip
from tests.support.models import prompts_for
from tests.support.reads import ROOT, Reads
from tests.support.settings import settings

SETTINGS = {name: method for name, method in settings().items() if name.endswith("-0")}

#: For every prompt: where its images are, which tokens are padding, and where the last image ends
#: (for cropping the cache). For every selection: whether the answer makes sense.
PROMPT, ANSWER = 3, 1
#: How much more a prefill with one image reads, and why.
MORE = {
    **dict.fromkeys(["divprune", "otprune"], 0),
    # Scores are ranked, and must have no NaN before they are: once for each selection.
    **dict.fromkeys(["cdpruner", "clse", "evs", "fastervlm", "fastv", "hired", "random"], 1),
    **dict.fromkeys(["vispruner"], 1),
    "v2drop": 3,
    "uniform": 2,  # and whether a grid of steps has as many tokens as are asked for
    "holov": 2,  # and how many tokens of each piece are there
    "scope": 1,  # whether the greedy order is sure in float32
    **dict.fromkeys(["evoprune", "tome"], 1),  # merges name no token twice
    "prunus": 3,  # both
    **dict.fromkeys(["pooling", "visionzip"], 2),  # sums are finite; how many tokens are new
    "knockout": 1,  # how many rows of attention are edited
    "fixed": 1,  # whether the tokens are there
    "dart": 2,  # how long the text behind the image is, and how many words it has
    # The text behind the image and which words rate; tables of closed positions are as the model's
    # (3 once for each prompt); what is recycled at each selection.
    "pyramiddrop": 6,
    "fitprune": 6,
    "sparsevlm-plus": 5,
    "sparsevlm": 11,
    "duet": 7,
    "vscan": 8,
    # A sample or image finds its own number of tokens.
    "vidcom2": 3,
    "priortr": 4,
    "ivc-prune": 4,
    "prumerge": 3,
    "clse-m": 5,
    "visipruner": 9,
    # The question is looked for among the words, on the CPU.
    "mmr": 5,
    "mmtok": 6,
    "one-shot": 6,
    "stepwise": 7,
}
#: What a padded batch reads beside a single prompt: whether there is padding, and how many tokens
#: are there then; and whether its mask hides what stands behind an image.
PADDED = {"priortr": 2}
#: Those that close positions up inside the language model, so that a step turns them for later
#: layers.
CLOSED = ("duet", "pyramiddrop", "sparsevlm", "vscan")


@pytest.fixture(scope="module")
def model() -> Any:
    return llava_clip()


def prefill_and_step(model: Any, method: Method | None, rows: int) -> tuple[Reads, Reads, int]:
    """Reads of a prompt of ``rows`` images, of a decode step behind it, and its selections."""
    inputs = prompts_for("llava-clip").rows(*[1] * rows)
    ids = torch.full((rows, 1), 41)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(ids)], 1)

    def both() -> tuple[Reads, Reads]:
        with Reads() as prompt:
            cache = model(**inputs, use_cache=True).past_key_values
        with Reads() as step:
            model(input_ids=ids, attention_mask=mask, past_key_values=cache)
        return prompt, step

    with torch.no_grad():
        if method is None:
            return (*both(), 0)
        with prunus.prune(model, method, processor=False) as run:
            both()  # what is proved once for each model
            return (*both(), len({entry.layer for entry in run.trace}))


@pytest.mark.parametrize("name", SETTINGS)
def test_reads_of_a_prompt_and_a_step(model: Any, name: str) -> None:
    prompt, step, cuts = prefill_and_step(model, SETTINGS[name], 1)
    name = name.removesuffix("-0")
    assert prompt.total == PROMPT + cuts * ANSWER + MORE[name], prompt.lines
    assert (step.total, step.uploads.total()) == (0, 0), step.lines
    if name not in CLOSED:  # a step does nothing that the unpruned model does not
        assert step.calls == prefill_and_step(model, None, 1)[1].calls


@pytest.mark.parametrize("name", SETTINGS)
def test_reads_do_not_grow_with_the_batch(model: Any, name: str) -> None:
    alone, _, _ = prefill_and_step(model, SETTINGS[name], 1)
    several, step, _ = prefill_and_step(model, SETTINGS[name], 6)
    assert step.total == 0
    more = several.total - alone.total
    assert more == PADDED.get(name.removesuffix("-0"), 1), several.lines - alone.lines


@pytest.mark.parametrize("name", ["visipruner-1", "visipruner-3", "prumerge-1", "clse-m-2"])
def test_numbers_of_tokens_are_read_for_all_images_at_once(model: Any, name: str) -> None:
    few, many = (prefill_and_step(model, settings()[name], rows)[0] for rows in (3, 8))
    assert few.lines == many.lines


def test_what_is_counted() -> None:
    values = torch.arange(4)
    with Reads() as reads:
        values.tolist(), values.nonzero()  # by nobody of prunus
    assert reads.total == 0
    for read in (
        "values.tolist()",
        "values.nonzero()",
        "values[values > 1]",
        "int(values.max())",
        "bool((values > 0).all())",
        "torch.equal(values, values)",
        "values.repeat_interleave(values)",
    ):
        assert _asked(read, values).total == 1, read
    found = _asked("values.masked_fill(values > 1, 0).sort().values[:2]", values)
    assert found.total == 0 and found.calls > 0
    assert _asked("torch.tensor([1, 2])", values).uploads.total() == 1


def _asked(line: str, values: torch.Tensor) -> Reads:
    """Reads of a ``line`` that stands somewhere in prunus."""
    place = compile(f"def ask(): return {line}", f"{ROOT}/made_up.py", "exec")
    names: dict[str, Any] = {"torch": torch, "values": values}
    exec(place, names)
    with Reads() as reads:
        names["ask"]()
    return reads
