"""Where gold and things are kept."""

from __future__ import annotations

from typing import Protocol


class Stock(Protocol):
    """What people have."""

    def gold(self, name: str) -> int | None:
        """None: nobody of this name."""
        ...

    def set_gold(self, name: str, gold: int) -> None: ...

    def add(self, name: str, item: str) -> None: ...

    def items(self, name: str) -> list[str]: ...


class MemoryStock:
    """Until the server stops."""

    def __init__(self) -> None:
        self._gold: dict[str, int] = {}
        self._items: dict[str, list[str]] = {}

    def gold(self, name: str) -> int | None:
        return self._gold.get(name)

    def set_gold(self, name: str, gold: int) -> None:
        self._gold[name] = gold

    def add(self, name: str, item: str) -> None:
        self._items.setdefault(name, []).append(item)

    def items(self, name: str) -> list[str]:
        return list(self._items.get(name, []))
