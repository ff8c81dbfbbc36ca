"""Pictures of trainings, predictions and cells."""
