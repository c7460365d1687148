"""Text in files and on pages: strict CSV, cleaned names, escaped HTML."""
