"""Configuration: sections, presets, and which run folder a command is about."""
