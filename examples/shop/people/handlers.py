"""Messages about people, and what they hear of others."""

from __future__ import annotations

from happened import Bought, Registered

from gameserver import Message, Refuse, Router, Session
from gameserver.storage import UnitOfWork
from people.services import Accounts, Mail, NotAllowed


class Register(Message):
    name: str


class ReadMail(Message):
    name: str


class Letters(Message):
    texts: list[str]


router = Router("people")


@router.on("register")
async def register(session: Session, msg: Register, accounts: Accounts, work: UnitOfWork) -> None:
    try:
        await accounts.register(msg.name)
    except NotAllowed as error:
        raise Refuse("not-allowed", str(error)) from None
    work.emit(Registered(msg.name), key=msg.name)


@router.on("mail")
async def mail(session: Session, msg: ReadMail, mail: Mail) -> Letters:
    return Letters(await mail.read(msg.name))


@router.on_event(Registered)
async def welcome(event: Registered, mail: Mail) -> None:
    await mail.send(event.name, f"Welcome, {event.name}!")


@router.on_event(Bought)
async def receipt(event: Bought, mail: Mail) -> None:
    await mail.send(event.name, f"You have bought a {event.item} for {event.price}.")
