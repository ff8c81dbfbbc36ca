"""What is made from trained networks and with them: retrain, predict, tune, label, export."""
