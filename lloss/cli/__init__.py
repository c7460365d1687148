"""The command line: one file per command, named by the command; `main` dispatches."""
