"""Pruning methods: one file each, found by themselves."""
