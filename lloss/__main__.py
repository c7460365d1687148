"""``python -m lloss``."""

from lloss.cli import main

main()
