"""Pools: scored in the background, handed out image by image, labeled."""
