"""Accuracy against budget: many methods and budgets on the same questions, with intervals."""

from prunus.evaluate.cells import Cell, make_cells
from prunus.evaluate.output import write_results
from prunus.evaluate.properties import Property, discrimination
from prunus.evaluate.runner import Outcome, evaluate
from prunus.evaluate.summary import Row, summarise
from prunus.tasks.sets import EvalSet, Query, load_builtin_set, load_file

__all__ = [
    "Cell",
    "EvalSet",
    "Outcome",
    "Property",
    "Query",
    "Row",
    "discrimination",
    "evaluate",
    "load_builtin_set",
    "load_file",
    "make_cells",
    "summarise",
    "write_results",
]
