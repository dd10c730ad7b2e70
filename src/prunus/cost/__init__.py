"""What a run costs: FLOPs and cache bytes, counted from configurations and token counts."""

from prunus.cost.flops import FORMULA, prefill_flops
from prunus.cost.kv import kv_bytes
from prunus.cost.report import build_report
from prunus.cost.shapes import ModelShape, read_decoder, read_shape

__all__ = [
    "FORMULA",
    "ModelShape",
    "build_report",
    "kv_bytes",
    "prefill_flops",
    "read_decoder",
    "read_shape",
]
