"""PRESETS: configurations that come with the program, each a file here that holds what differs from its base."""

from importlib.resources import files

PRESETS = ("demo", "cpu", "sennet", "source-table")


def preset_text(name: str) -> str:
    """The TOML of a preset."""
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
