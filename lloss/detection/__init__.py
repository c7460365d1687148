"""Object detection: the network, its loss an image, augmentation, average precision."""
