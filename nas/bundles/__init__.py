"""What is made of and with trained networks: retrain, predict, tune, label, export."""
