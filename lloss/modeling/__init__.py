"""Networks, the loss prediction head, and the losses that train it."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of the channels of ImageNet's images, scaled to 0..1."""
