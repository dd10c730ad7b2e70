"""What merges in the tower goes around the pooling of a LLaVA-OneVision's videos.

The oracle merges each frame by hand, projects what is left, writes it into the embeddings of the
unmodified model at the places that the rule names, and hides the other places by masks.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus import CLSE, EvoPrune, Fixed, Method, Uniform
from prunus.errors import PrunusError
from prunus.grid import Grid
from prunus.pruners.tome import ToMe
from prunus.pruners.visionzip import VisionZip
from tests.support.command_line import Cli
from tests.support.families import encoded, picture
from tests.support.family_checks import assert_costs
from tests.support.family_invariants import load
from tests.support.kinds.llava_onevision import ACROSS, FRAMES, LLAVA_ONEVISION, PATCH, POOLED
from tests.support.llava import DEPTH
from tests.support.oracles.masked import continued, masked_logits, visibility
from tests.support.oracles.merged import given, merged_tower
from tests.support.oracles.merged_frames import of_frame
from tests.support.runs import gap, plain

FINE, PLACES = ACROSS**2, POOLED**2  # tokens and places of a frame


def evoprune(keep: float, **more: Any) -> EvoPrune:
    return EvoPrune(keep=keep, schedule="mean", start=0, **more)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(LLAVA_ONEVISION, tmp_path_factory.mktemp("model"))


def oracle(model: Any, inputs: dict[str, Tensor], trace: list[Any], prompt: int) -> Tensor:
    """Logits of the unmodified model; ``inputs`` may go on behind the ``prompt``'s length."""
    entry, video = trace[0], model.config.video_token_id
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach().clone()
    spots: list[list[list[int]]] = []
    videos = iter(inputs["pixel_values_videos"])
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        spots.append([])
        runs = [list(run) for key, run in groupby(enumerate(ids), lambda at: at[1]) if key == video]
        for number, run in enumerate(runs):
            places = [place for place, _ in run]
            own = [0] * (FRAMES * FINE)
            for frame, pixels in enumerate(next(videos)):
                choose = given(of_frame(entry.steps[row][number], frame, FINE))
                tokens, _ = merged_tower(
                    model, pixels[None], choose, entry.by_size, entry.proportional
                )
                left = sorted(tokens)
                seats = [(2 * j + 1) * PLACES // (2 * len(left)) for j in range(len(left))]
                empty = [n for n in range(PLACES) if n not in seats]
                for token in range(FINE):
                    here = seats[left.index(token)] if token in left else empty[0]
                    if token not in left and empty[1:]:
                        empty.pop(0)  # every empty place is that of some token that is gone
                    own[frame * FINE + token] = places[frame * PLACES + here]
                    if token in left:
                        made = model.model.multi_modal_projector(tokens[token])
                        embeds[row, own[frame * FINE + token]] = made
            embeds[row, places[-1]] = model.model.image_newline
            spots[-1].append(own)
    visible = visibility(trace, spots, inputs["attention_mask"], DEPTH, prompt)

    def written(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "inputs_embeds": embeds}

    handle = model.model.language_model.register_forward_pre_hook(written, with_kwargs=True)
    try:
        return masked_logits(model, inputs, visible)
    finally:
        handle.remove()


METHODS: dict[str, Any] = {
    "evoprune": evoprune(6),
    "shared": evoprune(20, per="video"),
    "tome": ToMe(keep=8, proportional=True),
    "and-clse": [evoprune(8), CLSE(keep=9)],
    "and-random": [evoprune(7), Uniform(keep=6, layer=None)],
}


@pytest.mark.parametrize("name", METHODS)
def test_prefill_and_batch(name: str, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?", "no video at all", "so V")
    with prunus.prune(model, METHODS[name]) as run:
        logits = plain(model, inputs)
    assert run.trace[0].place == "encoder"
    assert run.trace[0].grid[0] == [Grid(FRAMES, ACROSS, ACROSS, (PATCH, PATCH))]
    expected = oracle(model, inputs, run.trace, inputs["input_ids"].shape[1])
    assert gap(logits[:, -1], expected[:, -1]) < 1e-4
    assert gap(logits[::2, -1], plain(model, inputs)[::2, -1]) > 1e-3
    alone = {name: inputs[name][2:] for name in ("input_ids", "attention_mask")}
    alone["pixel_values_videos"] = inputs["pixel_values_videos"][1:]
    with prunus.prune(model, METHODS[name]):
        assert gap(plain(model, alone)[:, -1], logits[2:, -1]) < 1e-4


def test_decode_and_beams(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?", "so V")
    length, steps = inputs["input_ids"].shape[1], 6
    options: dict[str, Any] = {
        "max_new_tokens": steps,
        "min_new_tokens": steps,
        "do_sample": False,
        "return_dict_in_generate": True,
    }
    with prunus.prune(model, evoprune(5)) as run:
        out = model.generate(**inputs, **options, output_logits=True)
    full = continued(inputs, out.sequences)
    expected = oracle(model, full, run.trace, length)[:, length - 1 : -1]
    assert gap(torch.stack(out.logits, dim=1), expected) < 1e-4
    with prunus.prune(model, evoprune(5)) as run:
        out = model.generate(
            **inputs,
            **options,
            num_beams=2,
            num_return_sequences=2,
            length_penalty=0.0,
            output_scores=True,
        )
    for number, (sequence, score) in enumerate(
        zip(out.sequences, out.sequences_scores, strict=True)
    ):
        row = number // 2
        single = {name: inputs[name][row : row + 1] for name in inputs}
        full = continued(single, sequence[None])
        logits = oracle(model, full, [one.of(row) for one in run.trace], length)[0, length - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, sequence[length:, None]).sum()
        assert abs(float(chosen) - float(score)) < 1e-3


def test_as_many_as_there_are_places(loaded: tuple[Any, Any]) -> None:
    """Nothing is left out of the prompt, but everything in it is another."""
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?")
    dense = plain(model, inputs)
    with prunus.prune(model, evoprune(PLACES)) as run:
        logits = plain(model, inputs)
    assert gap(logits[:, -1], dense[:, -1]) > 1e-3
    trace = [one.of(0) for one in run.trace]
    video = (inputs["input_ids"][0] == model.config.video_token_id).nonzero().flatten()[:-1]
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach().clone()
    made = []
    for frame, pixels in enumerate(inputs["pixel_values_videos"][0]):
        choose = given(of_frame(trace[0].steps[0][0], frame, FINE))
        tokens, _ = merged_tower(model, pixels[None], choose)
        made += [model.model.multi_modal_projector(tokens[token]) for token in sorted(tokens)]
    embeds[0, video] = torch.stack(made).detach()
    embeds[0, video[-1] + 1] = model.model.image_newline.detach()
    with torch.no_grad():
        expected = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
    assert gap(logits, expected) < 1e-4


def test_nothing_merged_is_the_model_itself(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?")
    with prunus.prune(model, evoprune(1.0)) as run:
        assert gap(plain(model, inputs), plain(model, inputs)) == 0
        logits = plain(model, inputs)
    assert torch.equal(logits, plain(model, inputs)) and not run.report()["pruned"]


def test_a_trace_is_replayed(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?")
    with prunus.prune(model, evoprune(5)) as run:
        logits = plain(model, inputs)
    with prunus.prune(model, Fixed.replay(run.trace)):
        assert gap(plain(model, inputs), logits) < 1e-5


def test_costs(loaded: tuple[Any, Any]) -> None:
    """Tower and projector do less; what is pooled is not counted in either."""
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?")
    del inputs["attention_mask"]
    report = assert_costs(model, inputs, evoprune(5))
    assert report["uncounted"] == {} and report["flops"]["encoder_ratio"] < 1
    assert report["tokens"]["original"] == FRAMES * PLACES


def test_images_of_one_tile_merge_as_well(loaded: tuple[Any, Any]) -> None:
    """Several images of a sample reach the prompt as the tower gives them."""
    model, processor = loaded
    asked = {"images": [[picture(60, 40), picture(20, 70, 1)]], "return_tensors": "pt"}
    inputs = dict(processor(text=["a<image>b<image>?"], **asked))
    method: Method = evoprune(9)
    with prunus.prune(model, method) as run:
        logits = plain(model, inputs)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach().clone()
    places = (inputs["input_ids"][0] == model.config.image_token_id).nonzero().flatten().tolist()
    seen = [places[: FINE + 1], places[FINE + 1 :]]
    for number, pixels in enumerate(inputs["pixel_values"]):
        choose = given(run.trace[0].steps[0][number])
        tokens, _ = merged_tower(model, pixels[:1], choose)
        for token, state in tokens.items():
            embeds[0, seen[number][token]] = model.model.multi_modal_projector(state)
        embeds[0, seen[number][-1]] = model.model.image_newline
    spots = [[own[:-1] for own in seen]]
    visible = visibility(run.trace, spots, inputs["attention_mask"], DEPTH, len(embeds[0]))

    def written(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "inputs_embeds": embeds.detach()}

    handle = model.model.language_model.register_forward_pre_hook(written, with_kwargs=True)
    expected = masked_logits(model, inputs, visible)
    handle.remove()
    assert gap(logits[:, -1], expected[:, -1]) < 1e-4


def test_what_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    videos = encoded(LLAVA_ONEVISION, processor, "what V is?")
    images = encoded(LLAVA_ONEVISION, processor, "what I is?")
    with prunus.prune(model, evoprune(10)), pytest.raises(PrunusError, match="keep 9 at most"):
        plain(model, videos)
    with prunus.prune(model, evoprune(5)), pytest.raises(PrunusError, match="cut into tiles"):
        plain(model, images)
    with prunus.prune(model, VisionZip(keep=8)):
        with pytest.raises(PrunusError, match="which the model pools behind it"):
            plain(model, videos)


def test_features_of_another_call_are_told_apart(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded
    inputs = encoded(LLAVA_ONEVISION, processor, "what V is?")
    with prunus.prune(model, evoprune(5)), torch.no_grad():
        features = model.model.get_video_features(inputs["pixel_values_videos"])
        alone = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with pytest.raises(PrunusError, match="does not say how large"):
            model(**alone, mm_encoder_outputs={"video": features})
    stored, pool = [], model.model.apply_pooling

    def from_store(features: Tensor) -> Tensor:
        stored.append(pool(features))
        return stored[0]

    monkeypatch.setattr(model.model, "apply_pooling", from_store)
    with prunus.prune(model, evoprune(5)):
        plain(model, inputs)
        with pytest.raises(PrunusError, match="not those of the vision tower's last call"):
            plain(model, inputs)


def test_kept_tokens_of_a_video_are_drawn_on_the_grid_of_the_tower(
    tmp_path: Path, cli: Cli
) -> None:
    LLAVA_ONEVISION.save(tmp_path / "model")
    options: list[Any] = ["--source-fps", 2]
    for number in range(2):
        picture(60, 40, number).save(tmp_path / f"{number}.png")
        options += ["--video", tmp_path / f"{number}.png"]
    overlay = tmp_path / "kept.png"
    options += ["--method", "evoprune", "--param", "schedule=mean", "--param", "start=0"]
    options += ["--model", tmp_path / "model", "--prompt", "what?", "--keep", 6]
    result = cli("run", *options, "--max-new-tokens", 2, "--save-overlay", overlay, "--json")
    assert result.code == 0 and overlay.stat().st_size > 1000
    assert result.json["per_layer"][0] == result.json["tokens"]["kept"] == 12
