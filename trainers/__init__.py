"""How a candidate is trained and scored."""
