"""The Optuna study: suggestions, samplers, storage, budget."""
