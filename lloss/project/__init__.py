"""A project on disk: its settings, its cycles and their reports."""
