"""`python -m catdog` is the `catdog` command."""

from catdog.commands.cli import main

main()
