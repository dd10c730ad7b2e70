"""Model families: one file each."""

from prunus.families.base import Beside, Family
from prunus.families.modules import attention_modules
from prunus.families.registry import families, family_of, model_types, unwrap

__all__ = [
    "Beside",
    "Family",
    "attention_modules",
    "families",
    "family_of",
    "model_types",
    "unwrap",
]
