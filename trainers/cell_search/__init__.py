"""Differentiable cell search, which trains weights and alphas alternately."""
