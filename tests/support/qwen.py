"""A tiny random Qwen2.5-VL of the real architecture, and prompts with images and videos for it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IMAGE, VIDEO, START, END, PAD = 100, 101, 102, 103, 0
PATCH, MERGE, TIME = 4, 2, 2
Size = tuple[int, int, int]  # frames, rows and columns of patches, as processors give them
IMAGES: tuple[Size, ...] = ((1, 8, 10), (1, 12, 8))
VIDEOS: tuple[Size, ...] = ((2, 6, 6), (3, 4, 8))


def qwen(depth: int = 5) -> Qwen2_5_VLForConditionalGeneration:
    """Windows of 2x2 visual tokens, so that every grid has several; every second block is full."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": PATCH,
            "temporal_patch_size": TIME,
            "spatial_merge_size": MERGE,
            "window_size": 2 * MERGE * PATCH,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": 64,
            "initializer_range": 0.15,
        },
        text_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": depth,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 128,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
            },
            "pad_token_id": PAD,
            "bos_token_id": 1,
            "eos_token_id": 127,
            "initializer_range": 0.15,
        },
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id = PAD
    model.generation_config.suppress_tokens = [IMAGE, VIDEO]  # no placeholders in an answer
    return model


def tokens(size: Size) -> int:
    """Visual tokens of one image or video."""
    frames, rows, cols = size
    return frames * rows * cols // MERGE**2


@dataclass
class QwenPrompts:
    """Prompts whose visual inputs take turns between ``kinds``; sizes differ from one to the next,
    counted over the batch."""

    kinds: tuple[str, ...] = ("image",)

    def rows(self, *images: int, text: int = 6, seed: int = 1) -> dict[str, Tensor]:
        """A left-padded batch; row i has ``images[i]`` images or videos and text around each."""
        generator = torch.Generator().manual_seed(seed)
        sizes: dict[str, list[Size]] = {"image": [], "video": []}
        rows = []
        for number, count in enumerate(images):
            row: list[int] = [1]
            for turn in range(count):
                kind = self.kinds[turn % len(self.kinds)]
                choice, token = (IMAGES, IMAGE) if kind == "image" else (VIDEOS, VIDEO)
                sizes[kind].append(choice[len(sizes[kind]) % len(choice)])
                row += torch.randint(3, 90, (3 + number,), generator=generator).tolist()
                row += [START, *[token] * tokens(sizes[kind][-1]), END]
            row += torch.randint(3, 90, (text + number,), generator=generator).tolist()
            rows.append(row)
        length = max(len(row) for row in rows)
        ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
        }
        names = {"image": "pixel_values", "video": "pixel_values_videos"}
        for kind, given in sizes.items():
            if given:
                patches = sum(MERGE**2 * tokens(size) for size in given)
                width = 3 * TIME * PATCH * PATCH
                inputs[names[kind]] = torch.randn(patches, width, generator=generator)
                inputs[f"{kind}_grid_thw"] = torch.tensor(given)
        if sizes["video"]:
            inputs["second_per_grid_ts"] = torch.tensor([0.5, 1.0] * len(sizes["video"]))
            inputs["second_per_grid_ts"] = inputs["second_per_grid_ts"][: len(sizes["video"])]
        return inputs

    def spots(self, ids: Tensor) -> list[list[list[int]]]:
        """``[row][image]`` logical positions of the visual tokens, counted from the ids alone."""
        return [[places for _, places in _runs(row)] for row in ids.tolist()]

    def grids(self, inputs: dict[str, Tensor]) -> list[list[Size]]:
        """``[row][image]`` frames, rows and columns of visual tokens."""
        queues = {
            token: inputs.get(f"{kind}_grid_thw", torch.zeros(0, 3)).tolist()
            for token, kind in ((IMAGE, "image"), (VIDEO, "video"))
        }
        found = []
        for row in inputs["input_ids"].tolist():
            sizes = [queues[token].pop(0) for token, _ in _runs(row)]
            found.append([(int(t), int(h) // MERGE, int(w) // MERGE) for t, h, w in sizes])
        return found

    def one(self, inputs: dict[str, Tensor], row: int, trim: bool = False) -> dict[str, Tensor]:
        """One row of a batch by itself; ``trim`` takes its padding off."""
        ids = inputs["input_ids"]
        kept = inputs["attention_mask"][row].bool() if trim else slice(None)
        alone = {
            name: inputs[name][row : row + 1, kept]
            for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        }
        names = {IMAGE: ("image", "pixel_values"), VIDEO: ("video", "pixel_values_videos")}
        for token, (kind, pixels) in names.items():
            before = sum(t == token for r in ids[:row].tolist() for t, _ in _runs(r))
            own = sum(t == token for t, _ in _runs(ids[row].tolist()))
            if not own:
                continue
            grids = inputs[f"{kind}_grid_thw"]
            patches = [0, *grids.prod(1).cumsum(0).tolist()]
            alone[pixels] = inputs[pixels][patches[before] : patches[before + own]]
            alone[f"{kind}_grid_thw"] = grids[before : before + own]
            if kind == "video":
                seconds = inputs["second_per_grid_ts"]
                alone["second_per_grid_ts"] = seconds[before : before + own]
        return alone


def _runs(row: list[int]) -> list[tuple[int, list[int]]]:
    """Each unbroken run of one placeholder in a row: the token, and where it stands."""
    runs = groupby(enumerate(row), key=lambda item: item[1])
    return [(t, [place for place, _ in run]) for t, run in runs if t in (IMAGE, VIDEO)]
