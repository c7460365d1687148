"""The catalog: the daemon's state in SQLite."""
