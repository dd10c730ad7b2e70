"""Whether CLSE suits a model: the verdict of ``prunus analyse spectral``."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

import prunus
from prunus.analyse import Context, analyse, every_prompt, spread, write
from prunus.analyse.measure import Measured
from prunus.analyse.positions import kept
from prunus.analyse.signals import collect
from prunus.analyse.suits import Suits, answers_trial, remains, suits, work
from prunus.analyse.suits_shown import suits_facts, verdict
from prunus.analyse.verdict import LEAST_IMAGES, Trial, reason, together
from prunus.io.images import image_files
from prunus.pruners.clse import CLSE
from prunus.results.stats import Estimate
from prunus.tasks.sets import Clip, EvalSet, Query, builtin_set_for, load_builtin_set
from tests.support.command_line import Cli, refused
from tests.support.families import (
    LLAVA_NEXT,
    QWEN2_VL,
    QWEN3_VL,
    SIZES,
    SMALL,
    TEMPLATE,
    TEXT,
    Kind,
    clip,
    finish,
    picture,
    tokenizer,
)
from tests.support.kinds.internvl import INTERNVL

SIDE, PATCH = 32, 4  # pixels: 8 x 8 visual tokens
OBJECT, GROUND, COLOUR = 0, 1, slice(2, 5)  # channels that say what a token shows


def synthetic(grows: str) -> tuple[Any, Any]:
    """A model whose answer is the colour of the object, and whose layer 0 changes the sharp content
    of ``objects`` or of ``background`` alone (``grows``).

    Features are made of pixels: what is bright is an object of a colour, and background is all
    alike. All weights of the decoder are 0 but for one head of layer 1, through which text looks
    at objects (by a bias of the queries, in the slowest pair of RoPE) and takes their colour.
    """
    words = tokenizer("<image>", "<|im_start|>", "<|im_end|>")
    token = words.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 16,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={
            "model_type": "llama",
            **TEXT,
            "num_hidden_layers": 3,
            "num_key_value_heads": 4,
            "attention_bias": True,
        },
        image_token_index=token,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    model = finish(LlavaForConditionalGeneration(config), [token])
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE),
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    core, layers = model.model, model.model.language_model.layers
    size, width = config.text_config.head_dim, config.text_config.hidden_size

    def features(pixel_values: Tensor, *_: Any, **__: Any) -> BaseModelOutputWithPooling:
        patches = torch.nn.functional.avg_pool2d(pixel_values, PATCH).flatten(2).transpose(1, 2)
        bright = patches.amax(dim=-1) > 0
        found = torch.zeros(*bright.shape, width)
        found[..., OBJECT], found[..., GROUND] = 4.0 * bright, 4.0 * ~bright
        found[..., COLOUR] = patches * bright[..., None]
        return BaseModelOutputWithPooling(pooler_output=list(found))

    core.get_image_features = features
    with torch.no_grad():
        core.get_input_embeddings().weight[:, : COLOUR.stop] = 0
        for layer in layers:
            for weight in (*layer.self_attn.parameters(), layer.mlp.down_proj.weight):
                weight.zero_()
        seer = layers[1].self_attn
        seer.q_proj.bias[size - 1] = 8  # of head 0
        seer.k_proj.weight[size - 1, OBJECT] = 8
        for channel in range(COLOUR.start, COLOUR.stop):
            seer.v_proj.weight[channel, channel] = seer.o_proj.weight[channel, channel] = 4
    noise = torch.randn(512, width, generator=torch.Generator().manual_seed(1))
    noise[:, : COLOUR.stop] = 0

    def change(_: Any, given: Any, out: Any) -> Any:
        states = out[0] if isinstance(out, tuple) else out
        if grows == "objects":
            states = torch.where(states[..., OBJECT, None] > 1, 1.5 * states, states)
        else:
            own = noise[: states.shape[1]]
            states = torch.where(states[..., GROUND, None] > 1, states + own, states)
        return (states, *out[1:]) if isinstance(out, tuple) else states

    layers[0].register_forward_hook(change)
    return model, processor


def pictures(count: int) -> list[Image.Image]:
    """Black, with one object of 8 x 8 pixels in a colour and at a place of its own."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        top, left = PATCH * rng.integers(0, 7, 2)
        pixels[top : top + 2 * PATCH, left : left + 2 * PATCH] = rng.integers(180, 256, 3)
        found.append(Image.fromarray(pixels))
    return found


def asked(grows: str, images: int) -> Suits:
    """What CLSE's choices are worth on a synthetic model that is asked about ``images``."""
    context = Context(
        *synthetic(grows), every_prompt(pictures(images), ["what color is it?"]), batch=images
    )
    done: list[int] = []
    found = suits(context, collect(context, lambda _: None), done.append)
    assert sum(done) == work(context)
    return found


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunus.analyse.context._OPEN_ANSWER", 1)


def test_where_layer_0_changes_objects_clse_suits() -> None:
    found = asked("objects", LEAST_IMAGES)
    assert [trial.word for trial in found.trials] == ["suits", "suits"]
    assert all(trial.own.value > 0.999 for trial in found.trials)  # every object is kept
    told = verdict(found)
    assert told.word == "suits" and told.text.startswith("CLSE suits this model (layer 0 → 1; 20 ")
    assert "no labels needed" in told.text and "--method" not in told.text


def test_where_layer_0_changes_background_clse_does_not_suit() -> None:
    found = asked("background", LEAST_IMAGES)
    assert [trial.word for trial in found.trials] == ["does not suit", "does not suit"]
    told = verdict(found)
    assert told.word == "does not suit" and "CLSE does not suit this model" in told.text
    assert "prunus analyse sweep" in told.text
    assert set(found.better) == {"uniform"} or not found.better
    facts = suits_facts(found)
    assert len(facts) == 2 and all("CLSE 2" in fact for fact in facts)  # blind: about a fifth


def test_few_images_tell_nothing() -> None:
    found = asked("objects", LEAST_IMAGES - 1)
    told = verdict(found)
    assert told.word == "cannot tell" and not found.better
    assert f"too few images ({LEAST_IMAGES - 1}): give at least {LEAST_IMAGES}" in told.text


def test_what_is_left_is_compared_question_by_question() -> None:
    """Against a literal reading: exp(-KL), minus its mean over the draws, mean over questions."""
    rng = np.random.default_rng(0)
    nats = rng.random((4, 30)) * 2
    own, *chances = (Measured(kl, kl, kl, {}) for kl in nats)
    trial = answers_trial(1 / 9, own, chances, np.arange(30))
    ahead = [
        math.exp(-nats[0][n]) - sum(math.exp(-kl[n]) for kl in nats[1:]) / 3 for n in range(30)
    ]
    assert trial.ahead.value == pytest.approx(sum(ahead) / 30)
    assert trial.own.value == pytest.approx(sum(math.exp(-kl) for kl in nats[0]) / 30)
    assert trial.draws == pytest.approx(
        [float(np.mean(np.exp(-nats[0]) - np.exp(-kl))) for kl in nats[1:]]
    )
    assert trial.images == 30 and remains(own).tolist() == pytest.approx(np.exp(-nats[0]).tolist())


CLEAR = Trial(
    "answers", 1 / 9, Estimate(0.9, 0.8, 1.0), 0.5, Estimate(0.4, 0.3, 0.5), (0.4, 0.4), 40
)
WORSE = replace(CLEAR, ahead=Estimate(-0.4, -0.5, -0.3), draws=(-0.4, -0.4))


@pytest.mark.parametrize(
    ("trial", "word", "why"),
    [
        (CLEAR, "suits", "+40.0 points [+30.0, +50.0]"),
        (WORSE, "does not suit", "-40.0 points [-50.0, -30.0]"),
        (replace(CLEAR, ahead=Estimate(0.4, -0.1, 0.9)), "cannot tell", "interval that includes 0"),
        (replace(CLEAR, draws=(0.9, -0.1)), "cannot tell", "among themselves"),
        (replace(WORSE, draws=(-0.9, 0.1)), "cannot tell", "among themselves"),
        (replace(CLEAR, images=19), "cannot tell", "too few images (19)"),
        (replace(WORSE, images=19, things="videos"), "cannot tell", "too few videos (19)"),
        (replace(CLEAR, ahead=Estimate(0.4, math.nan, math.nan)), "cannot tell", "too few"),
        (
            replace(CLEAR, ahead=Estimate(0.009, 0.008, 0.010), least=0.01),
            "cannot tell",
            "no difference",
        ),
    ],
)
def test_one_measure_at_one_budget(trial: Trial, word: str, why: str) -> None:
    assert trial.word == word and together([trial]) == word
    assert why in reason([trial])


def test_budgets_that_contradict_each_other_tell_nothing() -> None:
    unsure = replace(CLEAR, keep=1 / 3, draws=(0.9, -0.1))
    assert together([CLEAR, unsure]) == "suits" and "33.3" not in reason([CLEAR, unsure])
    both = [CLEAR, replace(WORSE, keep=1 / 3)]
    assert together(both) == "cannot tell"
    assert reason(both) == "at 11.1 % kept it suits; at 33.3 % kept it does not suit"


_USUAL = (("llava-next", "scenes"), ("qwen2-vl", "own videos"), ("qwen3-vl", "videos"))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        pytest.param(
            kind,
            what,
            id=f"{kind.name}-{what}",
            marks=() if (kind.name, what) in _USUAL else pytest.mark.full,
        )
        for kind in (LLAVA_NEXT, QWEN2_VL, QWEN3_VL)
        for what in ("own images", "scenes", "videos", "own videos")
        if kind.video or "videos" not in what
    ],
)
def test_tiles_and_frames(kind: Kind, what: str, tmp_path: Path) -> None:
    """Spectra are taken and objects found in every tile and frame of other families."""
    kind.save(tmp_path)
    clips = tuple((lambda seed=seed: Clip(tuple(clip(6, *SMALL, seed)), 2.0)) for seed in (1, 2))
    data = {
        "own images": every_prompt([picture(*size) for size in SIZES[:2]], ["what is it?"]),
        "scenes": spread(load_builtin_set("scenes"), 2),
        "videos": spread(load_builtin_set("videos"), 2),
        "own videos": EvalSet("own", (Query(0, "what?", "", "p"),), (), (), {}, clips),
    }[what]
    context = Context(*prunus.load(tmp_path), data, batch=2)
    found = analyse(context, ["spectral"])[0]
    own = "own" in what
    assert any("AUROC" in note for note in found.notes) == own
    assert found.verdict is not None and found.verdict.word == "cannot tell"
    assert f"too few {what.split()[-1].replace('scenes', 'images')} (" in found.verdict.text
    measures = {row["measure"] for table in found.tables for row in table.rows if "measure" in row}
    assert measures == ({"answers"} if own else {"answers", "objects", "asked"})
    write(tmp_path / "out", found, {})  # draws
    told = json.loads((tmp_path / "out" / "spectral.json").read_text())["verdict"]
    assert told == {"word": "cannot tell", "text": found.verdict.text}


@pytest.mark.parametrize("variant", ["paper", "hybrid"])
def test_what_is_noted_is_what_clse_keeps(variant: Any, tmp_path: Path) -> None:
    """At one resolution and at several, with statistics of their own."""
    for kind in (LLAVA_NEXT, INTERNVL):
        kind.save(tmp_path / kind.name)
        model, processor = prunus.load(tmp_path / kind.name)
        asked = every_prompt([picture(*size) for size in SIZES], ["what is it?"])
        context = Context(model, processor, asked, batch=1)
        notes = collect(context, lambda _: None)
        assert kind is LLAVA_NEXT or any(len(note.grid.resolutions) > 1 for note in notes)
        score = {"paper": "intensity, global", "hybrid": "hybrid"}[variant]
        for batch in context.batches:
            with torch.inference_mode(), prunus.prune(model, CLSE(1 / 3, variant)) as run:
                model(**context.inputs(batch))
                found = run.trace[0].kept[0][0].tolist()
            assert np.flatnonzero(kept(notes[batch.queries[0]], score, 1 / 3)).tolist() == found


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "word"), [("tiny-llava", "suits"), ("tiny-qwen", "does not suit")]
)
def test_the_models_that_ship(name: str, word: str) -> None:
    pool = load_builtin_set(builtin_set_for(name))
    context = Context(*prunus.load(name), spread(pool, 70), pool, batch=8)
    told = analyse(context, ["spectral"])[0].verdict
    assert told is not None and told.word == word


def test_the_command_ends_in_the_verdict(cli: Cli, picture: Path, tmp_path: Path) -> None:
    options = ("--image", picture, "--prompt", "what color is it?", "--output", tmp_path / "out")
    result = cli("analyse", "spectral", *options)
    assert result.code == 0, result.err
    last = result.out.strip().splitlines()[-1]
    assert last.startswith("Verdict: cannot tell whether CLSE suits this model (layer 0 → 1; 1 ")
    assert "**Verdict: cannot tell" in (tmp_path / "out" / "index.md").read_text()


def test_a_folder_of_images(cli: Cli, picture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.png", "a.PNG"):
        (folder / name).write_bytes(picture.read_bytes())
    (folder / "notes.txt").write_text("no image")
    result = cli("analyse", "sinks", "--image", folder, "--prompt", "what?", "--output", tmp_path)
    assert result.code == 0 and "2 questions about 2 images" in result.out
    assert [path.name for path in image_files([folder, picture])] == [
        "a.PNG",
        "b.png",
        picture.name,
    ]
    (tmp_path / "none").mkdir()
    refused(
        cli("analyse", "--image", tmp_path / "none", "--prompt", "x"), "no images in the folder"
    )
