"""Model families: one file each."""

from prunus.families.base import Family, attention_modules, families, family_of, unwrap

__all__ = ["Family", "attention_modules", "families", "family_of", "unwrap"]
