"""Writers of task lists: images to label, with what a network found on them, for labeling tools."""
