"""Units of length, by the names that file formats use for them."""

# https://ngff.openmicroscopy.org/0.5/ (names) and the OME-XML schema of 2016-06 (symbols)
_PREFIXES = {
    "": ("", 0), "deca": ("da", 1), "hecto": ("h", 2), "kilo": ("k", 3), "mega": ("M", 6), "giga": ("G", 9),
    "tera": ("T", 12), "peta": ("P", 15), "exa": ("E", 18), "zetta": ("Z", 21), "yotta": ("Y", 24),
    "deci": ("d", -1), "centi": ("c", -2), "milli": ("m", -3), "micro": ("u", -6), "nano": ("n", -9),
    "pico": ("p", -12), "femto": ("f", -15), "atto": ("a", -18), "zepto": ("z", -21), "yocto": ("y", -24),
}  # fmt: skip
_NAMES = {
    **{f"{prefix}meter": 10.0 ** (power + 6) for prefix, (_, power) in _PREFIXES.items()},
    **{f"{prefix}metre": 10.0 ** (power + 6) for prefix, (_, power) in _PREFIXES.items()},
    "micron": 1.0, "angstrom": 1e-4, "ångström": 1e-4, "inch": 25_400.0, "inches": 25_400.0, "foot": 304_800.0,
    "yard": 914_400.0, "mile": 1_609_344_000.0,
}  # fmt: skip
_SYMBOLS = {
    **{f"{symbol}m": 10.0 ** (power + 6) for symbol, power in _PREFIXES.values()},
    "Å": 1e-4, "A": 1e-4, "in": 25_400.0, "ft": 304_800.0, "yd": 914_400.0, "mi": 1_609_344_000.0,
}  # fmt: skip


def micrometres(unit: object) -> float | None:
    """How many micrometres a unit is, by its name (`millimeter`, `microns`, any case) or symbol (`mm`, `µm`).

    None for what is not a unit of length, as `pixel`, and for what is not known here.
    """
    if not isinstance(unit, str):
        return None
    # ImageJ escapes the sign; Unicode has it twice, as micro and as the Greek letter.
    symbol = unit.strip().replace("\\u00b5", "u").replace("\\u00B5", "u").replace("µ", "u").replace("μ", "u")
    name = symbol.lower()
    found = _SYMBOLS.get(symbol) or _NAMES.get(name) or _NAMES.get(name.removesuffix("s"))
    return found or (_SYMBOLS.get(name) if len(name) > 1 else None)
