"""Serving without torch: scoring and the daemon."""
