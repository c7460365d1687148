"""Measured figures: intervals, ranking metrics, distributions, and their charts. No torch."""
