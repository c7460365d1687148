"""Images: decoding and resizing, by one code path for training and serving."""
