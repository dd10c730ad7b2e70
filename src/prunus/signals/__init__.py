"""Tensor arithmetic that methods share."""
