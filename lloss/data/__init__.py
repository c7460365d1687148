"""Labeled images: labels of every format, joined with the images of a pool."""
