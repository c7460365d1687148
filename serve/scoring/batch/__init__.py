"""Scoring of whole pools: read, decode, score and write, in parallel and in order."""
