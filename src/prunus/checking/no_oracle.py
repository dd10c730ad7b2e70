"""Where nothing is known that a pruned run would have to equal."""


class NoOracle(Exception):
    """A comparison cannot be made for this model or backend; the message says why."""
