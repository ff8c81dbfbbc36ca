"""The crops that a network takes."""

from search_spaces.errors import InputError


def refuse_crop(what: str, crop: int, edge: int, sized_to_crop: bool = False, smallest: int = 1) -> None:
    """Raise InputError, with the nearest valid crops, if a crop is not a multiple of `edge` or is too small."""
    if crop % edge == 0 and crop >= smallest:
        return
    why = "its windows and position tables are made for" if sized_to_crop else "its maps need"
    below, above = crop // edge * edge, max(smallest, (crop // edge + 1) * edge)
    near = f"{below} or {above}" if below >= max(smallest, 1) else f"{above}"
    least = f" of at least {smallest}" if crop < smallest else ""
    raise InputError(f"{what} cannot be built: {why} multiples of {edge}{least}; set the crop to {near}")
