"""What a run costs: FLOPs and cache bytes, counted from configurations and token counts."""

from prunus.cost.flops import FORMULA, prefill_flops, read_shape
from prunus.cost.kv import kv_bytes
from prunus.cost.report import build_report
from prunus.families.decoder_shapes import read_decoder
from prunus.families.shapes import ModelShape

__all__ = [
    "FORMULA",
    "ModelShape",
    "build_report",
    "kv_bytes",
    "prefill_flops",
    "read_decoder",
    "read_shape",
]
