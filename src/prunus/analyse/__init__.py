"""What happens to visual tokens inside a model: tables and figures behind ``prunus analyse``."""

from prunus.analyse.context import Context
from prunus.analyse.questions import every_prompt, spread
from prunus.analyse.result import Picture, Result, Table, write, write_index
from prunus.analyse.runner import ANALYSES, analyse

__all__ = [
    "ANALYSES",
    "Context",
    "Picture",
    "Result",
    "Table",
    "analyse",
    "every_prompt",
    "spread",
    "write",
    "write_index",
]
