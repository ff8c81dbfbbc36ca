"""Published encoders and decoders, their weights, and the resolution path."""
