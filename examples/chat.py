"""A chat over plain TCP: names, lines to everybody, groups, and who came and left.

Run it with `python examples/chat.py`, then `python examples/chat_client.py Ann` in one terminal and `... Bob` in another.
Bodies are text, not JSON. What a person types goes to these routes: a line to `say`, `/name NEW` to `name`, and so on.
"""

from typing import Any

from gameserver import App, Left, Refuse, Session

NAME_MAX, LINE_MAX, GROUPS_MAX = 16, 300, 8  # characters, characters, groups of one guest
RESERVED = "guest"


class Guest(Session):
    name = RESERVED

    def __init__(self) -> None:
        self.groups: set[str] = set()


app = App("chat", session=Guest)
guests: dict[str, Guest] = {}


@app.authenticate
def introduce(guest: Guest, user: dict[str, Any]) -> None:
    guest.name = as_name(str(user.get("name", "")), RESERVED)


@app.on_join
def join(guest: Guest) -> None:
    wanted, number = guest.name, 1
    while guest.name in guests:  # as many as there are guests of that name, at most
        number += 1
        guest.name = f"{wanted}{number}"
    app.push("line", f"* {guest.name} came in".encode(), skip=guest)
    guests[guest.name] = guest
    guest.push("line", f"* hello {guest.name}; here are: {', '.join(guests)}".encode())


@app.on_leave
def leave(guest: Guest, why: Left) -> None:
    del guests[guest.name]
    app.push("line", f"* {guest.name} {'left' if why is Left.LEFT else f'is gone ({why})'}".encode())


@app.on("say")
def say(guest: Guest, body: bytes) -> None:
    """A line to everybody, the speaker too."""
    app.push("line", f"{guest.name}: {as_line(body)}".encode())


@app.on("name")
def rename(guest: Guest, body: bytes) -> None:
    name = as_name(as_line(body))
    if name in guests:
        raise Refuse("taken", f"somebody is called {name} already")
    app.push("line", f"* {guest.name} is now {name}".encode())
    del guests[guest.name]
    guest.name = name
    guests[name] = guest


@app.on("who")
def who() -> bytes:
    return f"* here are: {', '.join(guests)}".encode()


@app.on("join")
def join_group(guest: Guest, body: bytes) -> None:
    name = as_name(as_line(body))
    if len(guest.groups) >= GROUPS_MAX:
        raise Refuse("too-many", f"at most {GROUPS_MAX} groups; leave one first: /part GROUP")
    guest.groups.add(name)
    group = app.group(name)
    group.add(guest)
    group.push("line", f"* {guest.name} is in group {name}, with {len(group) - 1} others".encode())


@app.on("part")
def part_group(guest: Guest, body: bytes) -> bytes:
    name = member_of(guest, as_line(body))
    guest.groups.discard(name)
    app.group(name).remove(guest)
    app.group(name).push("line", f"* {guest.name} is not in group {name} any more".encode())
    return f"* you are not in group {name} any more".encode()


@app.on("tell")
def tell(guest: Guest, body: bytes) -> None:
    """`GROUP LINE`: a line to the members of a group that one is in."""
    name, _, line = as_line(body).partition(" ")
    if not line:
        raise Refuse("empty", "/tell GROUP and a line")
    app.group(member_of(guest, name)).push("line", f"[{name}] {guest.name}: {line}".encode())


def member_of(guest: Guest, group: str) -> str:
    if group not in guest.groups:
        raise Refuse("no-member", f"you are not in group {group}: /join {group}")
    return group


def as_line(body: bytes) -> str:
    """What a client sent as one line without control characters; not empty, not too long."""
    text = "".join(char if char.isprintable() else " " for char in body.decode(errors="replace")).strip()
    if not text:
        raise Refuse("empty", "that is an empty line")
    return text[:LINE_MAX]


def as_name(text: str, default: str = "") -> str:
    name = "".join(filter(str.isalnum, text))[:NAME_MAX] or default
    if not name:
        raise Refuse("no-name", "a name is made of letters and digits")
    return name


if __name__ == "__main__":
    app.run(port=7777)
