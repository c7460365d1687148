"""The active learning loop on fully labeled data."""
