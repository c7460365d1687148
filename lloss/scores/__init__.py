"""The scores folder: Parquet parts, shards and their merge."""
