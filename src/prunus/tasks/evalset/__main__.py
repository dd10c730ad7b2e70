"""Rewrites the evaluation set: ``python -m prunus.tasks.evalset``."""

from prunus.tasks.evalset import main

main()
