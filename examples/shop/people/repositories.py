"""Where accounts and letters are kept."""

from __future__ import annotations

from typing import Protocol


class People(Protocol):
    """Names of those who have an account."""

    def add(self, name: str) -> bool:
        """False: there is one of this name."""
        ...


class Letters(Protocol):
    """Of each, newest last."""

    def add(self, name: str, text: str) -> None: ...

    def of(self, name: str) -> list[str]: ...


class MemoryPeople:
    """Until the server stops."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str) -> bool:
        if name in self._names:
            return False
        self._names.add(name)
        return True


class MemoryLetters:
    """Until the server stops."""

    def __init__(self) -> None:
        self._letters: dict[str, list[str]] = {}

    def add(self, name: str, text: str) -> None:
        self._letters.setdefault(name, []).append(text)

    def of(self, name: str) -> list[str]:
        return list(self._letters.get(name, []))
