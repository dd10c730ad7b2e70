"""Rewrites the evaluation set: ``python -m prunus.builtin.evalset``."""

from prunus.builtin.evalset import main

main()
