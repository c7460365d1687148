"""Semantic segmentation: a class for each pixel; mean pixel cross entropy, mean IoU."""
