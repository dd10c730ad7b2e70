"""Settings of every known method for the tests that run over all of them.

A new method is tested with its defaults and a small ``keep`` without being named here.
"""

from __future__ import annotations

import dataclasses

from prunus import CLSE, EvoPrune, Fixed, Knockout, Method, Random, VisiPruner, methods
from prunus.pruners.cdpruner import CDPruner
from prunus.pruners.clse_m import CLSEM
from prunus.pruners.dart import DART
from prunus.pruners.divprune import DivPrune
from prunus.pruners.duet import Duet
from prunus.pruners.evs import EVS
from prunus.pruners.fastv import FastV
from prunus.pruners.fitprune import FitPrune
from prunus.pruners.ivc_prune import IVCPrune
from prunus.pruners.pooling import Pooling
from prunus.pruners.priortr import PriorTR
from prunus.pruners.prumerge import PruMerge
from prunus.pruners.prunus import Prunus
from prunus.pruners.pyramiddrop import PyramidDrop
from prunus.pruners.sparsevlm import SparseVLM
from prunus.pruners.tome import ToMe
from prunus.pruners.v2drop import V2Drop
from prunus.pruners.vidcom2 import VidCom2
from prunus.pruners.visionzip import VisionZip
from tests.support.random_selectors import RandomOneShot, RandomStepwise

CHOSEN = {
    "clse": [
        CLSE(keep=5),
        CLSE(keep=5, trim_cache=True),
        CLSE(keep=5, layers=(3,), reference=1),
        CLSE(keep=5, variant="hybrid"),
        CLSE(keep=12, variant="released"),
        CLSE(keep=12, variant="released", score_type="attn", trim_cache=False),
        CLSE(keep=5, invert=True),
        CLSE(keep=5, score_type="residual"),
        CLSE(keep=5, ahead=True),
        CLSE(keep=0.4, variant="released", schedule="shares", spectrum="3d", trim_cache=False),
    ],
    "clse-m": [
        CLSEM(),
        CLSEM(keep=0.6),
        CLSEM(layer=0, positions="compact", factor="intensity"),
        CLSEM(keep=0.5, layer=0),
    ],
    "duet": [Duet(keep=5), Duet(keep=0.7, contextual=2, layers=(1, 4))],
    "dart": [DART(keep=5), DART(keep=11, layer=3)],
    # Two blocks of the LLaVAs' towers reach the projector: 16 tokens become 8 by the second alone,
    # 4 by both.
    "evoprune": [
        EvoPrune(keep=0.5),
        EvoPrune(keep=5, schedule="mean", start=0),
        EvoPrune(keep=0.5, per="video", start=0),
        EvoPrune(
            keep=6,
            schedule="decreasing",
            start=0,
            metric="hidden",
            proportional=True,
            by_size=False,
            order="append",
        ),
    ],
    "evs": [EVS(keep=5), EVS(keep=0.6), EVS(keep=0.6, first="share")],
    "fastv": [FastV(keep=5), FastV(keep=0.3, layer=1)],
    "fixed": [
        Fixed([0, 3, 7, 8, 15], layer=2),
        Fixed([2, 9], layer=None),
        Fixed([1, 2, 3], layer=0),
        Fixed([4], layer=4, trim_cache=True),
    ],
    "knockout": [
        Knockout(layers=(0, 1, 3)),
        Knockout(layers=(1, 2), mask="both", forget=True),
        Knockout(layers=(0, 2), mask="both", collapse=True, sink=-1),
        Knockout(layers=(0, 1), renormalise=True),
        Knockout(layers=(2, 4), mask="both", renormalise=True),
        Knockout(layers=(3,), mask="visual", renormalise=True),
    ],
    # Random weights: thresholds at which the filter finds some tokens, and vision leaves.
    "visipruner": [
        VisiPruner(layer_threshold=0.9999, tokens_threshold=0.5, exit_threshold=0, exit_count=1),
        VisiPruner(
            preset="paper",
            layer_threshold=0.9999,
            relative=0.2,
            min_tokens=3,
            renormalise=True,
            shallow_layers=2,
        ),
        VisiPruner(stages=("shallow",), first_layer="half", shallow_layers=3),
        VisiPruner(stages=("middle",), shallow_layers=1, tokens_threshold=0.6, layer_threshold=2),
        VisiPruner(
            stages=("deep",), late_layer=1, exit_threshold=-1, exit_count=2, decode_without=(0, 2)
        ),
        VisiPruner(
            layer_threshold=-1, force=True, late_layer=2, tokens_threshold=100, first_layer="cut"
        ),
    ],
    "prunus": [
        Prunus(keep=0.5),
        Prunus(
            keep=0.4,
            stages=[
                {"method": "tome", "leaves": [[0.4, 0.8]]},
                {"method": "divprune", "leaves": [[0.4, 0.6]]},
                {"method": "fastv", "params": {"layer": 2}},
            ],
        ),
    ],
    "pyramiddrop": [
        PyramidDrop(),
        PyramidDrop(keep=0.7, layers=(1, 4)),
        PyramidDrop(ratio=0.4, layers=(2, 3), positions="original"),
    ],
    "fitprune": [FitPrune(), FitPrune(deleted=(1, 6, 2, 1, 0), tokens=16)],
    "priortr": [PriorTR(keep=5), PriorTR(keep=0.3, layer=2, rows="but-last", trim_cache=False)],
    "sparsevlm": [
        SparseVLM(keep=0.3),
        SparseVLM(keep=5, layers=(1, 2, 4)),
        SparseVLM(keep=5, recycle=False),
    ],
    "cdpruner": [CDPruner(keep=5), CDPruner(keep=5, halves=True)],
    "divprune": [DivPrune(keep=5), DivPrune(keep=0.4)],
    "prumerge": [PruMerge(keep=5), PruMerge(plus=True)],
    "pooling": [Pooling(keep=5), Pooling(keep=4, space="tower"), Pooling(keep=0.7)],
    "tome": [ToMe(keep=5), ToMe(r=3), ToMe(keep=6, proportional=False, cls=False)],
    "ivc-prune": [IVCPrune(), IVCPrune(keep=5, columns="image", landmarks=0.1, trim_cache=False)],
    # The published order is proved in tests/methods/test_visionzip.py: masks cannot move tokens.
    "visionzip": [
        VisionZip(keep=5),
        VisionZip(keep=7, contextual=3),
        VisionZip(keep=5, contextual=0, cls=False),
    ],
    "v2drop": [V2Drop(), V2Drop(keep=0.6, layers=(1, 3), ratios=(0.5, 0.5))],
    "vidcom2": [VidCom2(keep=5), VidCom2(keep=None, ratio=0.4)],
    "random": [Random(keep=0.3), Random(keep=4, layer=None)],
    # With a random selector for the model at hand: none ships for random models.
    "one-shot": [RandomOneShot(keep=5), RandomOneShot(keep=5, question=False)],
    "stepwise": [RandomStepwise(keep=5), RandomStepwise(bias=-1.0), RandomStepwise(keep=0.3)],
}


def settings() -> dict[str, Method]:
    """Test id to method."""
    chosen: dict[str, Method] = {}
    for name, cls in methods().items():
        fields = {field.name for field in dataclasses.fields(cls)}
        default = [cls(keep=5)] if "keep" in fields else [cls()]
        for number, method in enumerate(CHOSEN.get(name, default)):
            chosen[f"{name}-{number}"] = method
    return chosen


#: Ids of all but the first setting of each method.
LATER = frozenset(name for name in settings() if not name.endswith("-0"))
