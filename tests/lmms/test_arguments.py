"""Arguments of lmms-eval: what they mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from prunus.errors import PrunusError
from prunus.lmms.ended import Ended, ending
from prunus.lmms.generation import Generation
from prunus.lmms.settings import Settings


def test_what_lmms_eval_made_of_texts_is_what_was_typed() -> None:
    given = {"pretrained": "tiny-llava", "method": "clse", "keep": 64, "budget": True}
    settings = Settings.of({**given, "cutoff": 0.2, "batch_size": 8, "device": None})
    assert settings.meaning == "true" and settings.batch_size == 8
    [method] = settings.methods() or ()
    assert (method.name, method.keep, method.cutoff) == ("clse", 64, 0.2)  # type: ignore[attr-defined]


def test_several_methods_and_their_budgets() -> None:
    words = {"pretrained": "tiny-llava", "method": "evoprune+clse", "keep": "0.5+64"}
    first, second = Settings.of({**words, "clse.cutoff": 0.3}).methods() or ()
    assert (first.keep, second.keep, second.cutoff) == (0.5, 64, 0.3)  # type: ignore[attr-defined]


def test_without_a_method_nothing_is_pruned() -> None:
    assert Settings.of({"pretrained": "tiny-llava"}).methods() is None


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"pretrained": ""}, "no model"),
        ({"kep": 64}, "keep"),
        ({"method": "clse", "cutof": 0.2}, "cutoff"),
        ({"method": "clsse"}, "clse"),
        ({"budget": False}, "nominal"),
        ({"on_error": "skip"}, "record"),
        ({"batch_size": "auto"}, "batch_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_what_makes_no_sense_is_refused(more: dict[str, Any], word: str) -> None:
    with pytest.raises(PrunusError, match=word):
        Settings.of({"pretrained": "tiny-llava", **more})


def test_greedy_unless_a_temperature_says_otherwise() -> None:
    task = {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1}
    assert Generation.of({**task, "do_sample": True}, 9).options == {
        "max_new_tokens": 16,
        "num_beams": 1,
        "do_sample": False,
    }
    sampled = Generation.of({"temperature": 0.7, "top_p": 0.9, "top_k": 5}, 9).options
    assert sampled["do_sample"] and sampled["max_new_tokens"] == 9
    assert (sampled["temperature"], sampled["top_p"], sampled["top_k"]) == (0.7, 0.9, 5)
    assert not Generation.of({"temperature": 0.7, "do_sample": False}, 9).options["do_sample"]


def test_an_answer_ends_at_the_first_stop() -> None:
    generation = Generation.of({"until": ["\n\n", "ASSISTANT:"]}, 9)
    assert generation.cut(" a cat ASSISTANT: and\n\nmore") == "a cat"
    assert Generation.of({"until": "x"}, 9).cut("axb") == "a"
    with pytest.raises(PrunusError, match="until"):
        Generation.of({"until": [3]}, 9)


def test_settings_of_other_models_are_left_out_and_unknown_ones_are_told() -> None:
    Generation.of({"image_aspect_ratio": "original"}, 9)
    with pytest.warns(UserWarning, match="num_thoughts"):
        Generation.of({"num_thoughts": 3}, 9)


def test_a_refusal_is_no_exception_that_a_harness_could_swallow() -> None:
    with pytest.raises(SystemExit) as end:
        _as_its_command_does()
    assert isinstance(end.value, Ended)
    assert end.value.code == "error: prunus: too many tokens"
    with pytest.raises(RuntimeError), ending():
        raise RuntimeError("a bug stays one")


def _as_its_command_does() -> None:
    try:
        with ending():
            raise PrunusError("too many\ntokens")
    except Exception:  # lmms-eval prints it, and exits with 0
        pytest.fail("it was swallowed")
