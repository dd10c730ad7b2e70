"""Model families: one file each."""

from prunus.families.base import Beside, Family, attention_modules, families, family_of, unwrap

__all__ = ["Beside", "Family", "attention_modules", "families", "family_of", "unwrap"]
