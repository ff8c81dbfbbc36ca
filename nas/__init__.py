"""Who decides: commands and the outer loop."""
