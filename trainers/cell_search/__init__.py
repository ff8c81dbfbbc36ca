"""Differentiable cell search: weights and alphas in turn."""
