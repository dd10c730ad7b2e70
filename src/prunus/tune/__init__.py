"""Which method at which budget one's own questions bear: looked for, and shown once."""

from prunus.tune.tuning import tune
from prunus.tune.wish import Wish

__all__ = ["Wish", "tune"]
