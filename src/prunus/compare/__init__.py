"""Many methods on the same questions: what each costs, and whether a difference is one."""

from prunus.compare.contract import Comparison

__all__ = ["Comparison"]
