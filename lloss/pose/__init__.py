"""Human pose: heatmaps, their loss an image, augmentation, PCKh."""
