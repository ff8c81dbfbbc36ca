"""Reading a whole volume with a trained network."""
