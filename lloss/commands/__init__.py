"""The commands of the core; those of export and serve live in their rooms."""
