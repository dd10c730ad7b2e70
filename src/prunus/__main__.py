"""``python -m prunus``: the command line."""

from prunus.cli import main

main()
