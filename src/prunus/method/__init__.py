"""What a pruning method is: its configuration, where it looks, what it answers."""

from prunus.method.base import Cut, Edit, Method, Seen, Selection, make_method, methods

__all__ = ["Cut", "Edit", "Method", "Seen", "Selection", "make_method", "methods"]
