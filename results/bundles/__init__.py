"""Bundles and ensembles on disk, and their descriptions."""
