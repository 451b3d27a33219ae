"""A game of cards at tables of two to four: hands that nobody else sees, turns with a deadline, people who come back.

Run it with `python examples/cards.py`; tests/test_cards.py plays it with the Python client. The highest card takes the trick; who
has most tricks when the hands are empty has won.
"""

from __future__ import annotations

from typing import Annotated, Any

from gameserver import OWNER, App, GameServerError, MaxLen, Member, Message, Refuse, Room, on, sync, u8, u32

HAND, TURN_TIME, SEATS = 5, 20.0, 4

app = App("cards", resume_grace=30)


class Play(Message):
    """Lays a card of one's hand on the table."""

    card: u8


class Start(Message):
    """Deals the cards; any member may, once two are there."""


class Won(Message):
    """The hands are empty: who has most tricks."""

    number: u32


class Seat(Member):
    """A person at a table."""

    name: Annotated[str, MaxLen(16)] = sync("")
    hand: Annotated[list[u8], MaxLen(HAND)] = sync([], to=OWNER)
    cards: u8 = sync(0)  # how many: all may know
    played: u8 = sync(0)  # the card in this trick; 0: none yet
    tricks: u8 = sync(0)


app.messages(Won)


@app.authenticate
def authenticate(user: dict[str, Any]) -> str:
    """A name is enough here: who says it again has their seat again."""
    name = str(user.get("name", ""))[:16]
    if not name:
        raise Refuse("no-name", "say who you are")
    return name


@app.room("cards", max_members=SEATS, grace=60, match=("stake",), waits=(Play,))
class Table(Room[Seat]):
    """One game."""

    turn: u32 = sync(0)  # whose: a member's number; 0: nobody's, the game has not begun
    round: u32 = sync(0)

    def on_join(self, seat: Seat) -> None:
        seat.name = seat.uid or ""

    @on
    def start(self, msg: Start) -> None:
        if self.turn or len(self.members) < 2:
            raise Refuse("not-now", "two to four players, and no game that goes on")
        self.lock()
        deck = list(range(1, 53))
        self.random.shuffle(deck)
        for place, seat in enumerate(self.members):
            seat.hand = sorted(deck[place * HAND : (place + 1) * HAND])
            seat.cards, seat.tricks, seat.played = HAND, 0, 0
        self.task(self.game())

    async def game(self) -> None:
        """Tricks until the hands are empty."""
        order = list(self.members)
        for number in range(HAND):
            self.round = number + 1
            for seat in order:
                self.turn = seat.number
                card = await self.ask(seat)
                if seat in self.members:
                    seat.played, seat.hand = card, [other for other in seat.hand if other != card]
                    seat.cards = len(seat.hand)
            order = [seat for seat in order if seat in self.members]
            best = max(order, key=lambda seat: seat.played)
            best.tricks += 1
            order = order[order.index(best) :] + order[: order.index(best)]
            for seat in order:
                seat.played = 0
        self.turn = 0
        self.unlock()
        self.push(Won(max(order, key=lambda seat: seat.tricks).number))

    async def ask(self, seat: Seat) -> int:
        """The card that a member plays; who sleeps or goes plays the lowest."""
        lowest = seat.hand[0]
        try:
            play = await self.wait_for(Play, seat, timeout=TURN_TIME)
        except (TimeoutError, GameServerError):
            return lowest
        return play.card if play.card in seat.hand else lowest


if __name__ == "__main__":
    app.run()
