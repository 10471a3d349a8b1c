"""Amounts as people write them, there and back."""

from __future__ import annotations

import pytest
import typer

from mobilemoe.cli.units import amount, count, parse_bytes, parse_flops


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4750000", 4_750_000),
        ("4.75MB", 4_750_000),
        ("4.75 mb", 4_750_000),
        ("512kB", 512_000),
        ("1.5GiB", 3 * 2**29),
        ("2Mi", 2**21),
        ("1TB", 10**12),
        ("1b", 1),
    ],
)
def test_bytes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1e6", "4,75MB", "0", "1.5", "1i", "3MFLOP"])
def test_bytes_refuses(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3200000", 3_200_000), ("3.2M", 3_200_000), ("3.2MFLOP", 3_200_000), ("2 GFLOPs", 2 * 10**9)],
)
def test_flops(text: str, expected: int) -> None:
    assert parse_flops(text) == expected


@pytest.mark.parametrize("text", ["3.2MB", "3Mi", "flop"])
def test_flops_refuses(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_flops(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (512, "512 B"),
        (1024, "1.02 kB"),
        (4_070_112, "4.07 MB"),
        (999_999, "1.00 MB"),
        (1e13, "10.0 TB"),
    ],
)
def test_amount(value: float, expected: str) -> None:
    assert amount(value, "B") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7_044_464, "7.04 million"),
        (1_263_374_256, "1.26 billion"),
        (12, "12"),
        (272.5e6, "272 million"),
    ],
)
def test_count(value: float, expected: str) -> None:
    assert count(value) == expected
