"""Networks with a loss prediction head."""
