import pytest

from trainers.data.units import micrometres


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("micrometer", 1.0), ("micrometre", 1.0), ("Micrometers", 1.0), ("micron", 1.0), ("microns", 1.0), ("um", 1.0),
        ("µm", 1.0), ("μm", 1.0), ("\\u00B5m", 1.0), ("\\u00b5m", 1.0), ("UM", 1.0),
        ("millimeter", 1e3), ("millimetres", 1e3), ("mm", 1e3), ("centimeter", 1e4), ("cm", 1e4), ("meter", 1e6),
        ("m", 1e6), ("nanometer", 1e-3), ("nm", 1e-3), ("picometer", 1e-6), ("angstrom", 1e-4), ("Å", 1e-4),
        ("inch", 25_400.0), ("inches", 25_400.0), ("in", 25_400.0), ("Mm", 1e12),
    ],
)  # fmt: skip
def test_a_unit_is_known_by_its_names_and_its_symbol(unit: str, expected: float) -> None:
    assert micrometres(unit) == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["pixel", "", "furlong", "second", "reference frame", None, 3])
def test_what_is_no_unit_of_length_has_none(unit: object) -> None:
    assert micrometres(unit) is None
