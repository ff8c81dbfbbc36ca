"""PRESETS: configurations that come with the program. A preset's file holds what differs from its base."""

from importlib.resources import files

PRESETS = ("demo", "cpu", "sennet", "source-table")


def preset_text(name: str) -> str:
    """The TOML of a preset."""
    return files("nas.config").joinpath("presets", f"{name}.toml").read_text(encoding="utf-8")
