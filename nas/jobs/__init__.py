"""What a worker does: a trial or a cell search, on kidneys that it opens."""
