"""``python -m lloss``."""

from lloss.cli.main import main

main()
