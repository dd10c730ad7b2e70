"""The command line: ``prunus`` and ``python -m prunus``."""

from prunus.cli.app import main

__all__ = ["main"]
