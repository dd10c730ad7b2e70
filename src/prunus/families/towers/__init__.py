"""Adapters of vision towers."""
