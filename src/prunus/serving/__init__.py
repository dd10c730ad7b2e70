"""Servers of others with a pruned model inside; none of our own."""
