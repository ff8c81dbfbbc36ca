"""A search: what is checked before it, the driver, and what is left behind."""
