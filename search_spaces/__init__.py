"""What can be built: candidates and the networks they describe. Knows neither data nor Optuna."""
