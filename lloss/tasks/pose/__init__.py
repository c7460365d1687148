"""Human pose: heatmaps, their loss per image, augmentation, PCKh."""
