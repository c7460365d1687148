"""Networks that torchvision lacks, or that need more than torchvision's class."""
