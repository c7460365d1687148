"""Scoring on request: the artifact that serves, batches, and the protocols."""
