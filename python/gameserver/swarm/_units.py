"""Times, rates and shares as people write them."""

from __future__ import annotations

import re

from gameserver.errors import ConfigError

__all__ = ["bandwidth", "duration", "pace", "per_second", "seconds", "share", "think_time"]

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def pace(text: str) -> tuple[str, float]:
    """``"20/s"``, ``"depth 16"``, ``"nothing"``: its kind and number.

    Raises:
        ConfigError: it is none of these.
    """
    if text == "nothing":
        return "quiet", 0.0
    if match := re.fullmatch(r"depth (\d+)", text):
        if 1 <= int(match[1]) <= 10_000:
            return "closed", float(match[1])
    elif (rate := _rate(text)) is not None and 1e-4 <= rate <= 1e6:
        return "open", rate
    raise ConfigError(f'pace {text!r}: "20/s", "90/min", "depth 16" or "nothing"')


def per_second(value: str | float) -> float:
    """``"50/s"`` or 50: a rate.

    Raises:
        ConfigError: it is none.
    """
    rate = _rate(value) if isinstance(value, str) else float(value)
    if rate is None or not 0 < rate < 1e6:
        raise ConfigError(f'{value!r} is no rate: "50/s", or a number a second')
    return rate


def seconds(value: str | float) -> float:
    """``"90s"``, ``"1.5m"`` or a number: seconds, of which a phase has at least 0.05.

    Raises:
        ConfigError: it is none.
    """
    return duration(value, least=0.05, most=1e6)


def duration(value: str | float, *, least: float, most: float) -> float:
    """As `seconds`, between two bounds.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", value.strip()) if isinstance(value, str) else None
    try:
        found = float(match[1]) * UNITS[match[2] or "s"] if match else float(value)
    except (ValueError, KeyError, TypeError):
        found = -1.0
    if not least <= found <= most:
        raise ConfigError(
            f'{value!r} is no duration: "500ms", "30s", "5m", or seconds; from {least:g} to {most:,.0f} s'
        )
    return found


def think_time(value: str | float | tuple[str | float, str | float] | None) -> tuple[float, float]:
    """``"2s"``, or the least and the most.

    Raises:
        ConfigError: it is neither.
    """
    if value is None:
        return 0.0, 0.0
    least, most = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    found = tuple(duration(end, least=0.0, most=86_400.0) for end in (least, most))
    if found[0] > found[1]:
        raise ConfigError(f"think={value!r}: the least comes first")
    return found[0], found[1]


def share(value: str | float, *, most: float) -> float:
    """``"1%"`` or 0.01.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else float(value)
    except (ValueError, TypeError):
        found = -1.0
    if not 0 <= found <= most:
        raise ConfigError(f'{value!r} is no share: "1%" or 0.01; {most:.0%} at most')
    return found


def bandwidth(value: str | float) -> float:
    """``"2MB/s"`` or bytes a second.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"([0-9.]+)\s*(B|kB|MB|GB)/s", value.strip()) if isinstance(value, str) else None
    try:
        found = float(match[1]) * BYTES[match[2]] if match else float(value)
    except (ValueError, TypeError):
        found = -1.0
    if not 1e3 <= found <= 1e12:
        raise ConfigError(f'{value!r} is no bandwidth: "2MB/s", "500kB/s", or bytes a second; 1 kB/s at least')
    return found


def _rate(text: str) -> float | None:
    match = re.fullmatch(r"([0-9.]+)\s*/\s*(s|m|min|h)", text.strip())
    try:
        return float(match[1]) / UNITS[match[2]] if match else None
    except ValueError:
        return None
