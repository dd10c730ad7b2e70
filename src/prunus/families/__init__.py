"""Model families: one file each."""

from prunus.families.base import Family, families, family_of, unwrap

__all__ = ["Family", "families", "family_of", "unwrap"]
