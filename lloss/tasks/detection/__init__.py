"""Object detection: SSD, its loss per image, augmentation, average precision."""
