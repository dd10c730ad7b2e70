"""Hooks, caches, masks and positions: how tokens leave a running model."""
