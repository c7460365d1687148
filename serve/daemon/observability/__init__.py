"""Logs, metrics, drift."""
