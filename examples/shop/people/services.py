"""Rules about people and their mail."""

from __future__ import annotations

from people.repositories import Letters, People

NAME_MAX = 20
LETTERS_MAX = 50  # that are shown


class NotAllowed(Exception):
    """What somebody wanted can't be; says why."""


class Accounts:
    """Who has an account."""

    def __init__(self, people: People) -> None:
        self._people = people

    async def register(self, name: str) -> None:
        """Raises `NotAllowed`."""
        if not 0 < len(name) <= NAME_MAX or not name.isalnum():
            raise NotAllowed(f"a name has 1 to {NAME_MAX} letters and digits")
        if not await self._people.add(name):
            raise NotAllowed("this name is taken")


class Mail:
    """Letters to people."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    async def send(self, name: str, text: str) -> None:
        await self._letters.add(name, text)

    async def read(self, name: str) -> list[str]:
        return await self._letters.newest(name, LETTERS_MAX)
