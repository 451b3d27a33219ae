"""Messages about people, and what they hear of others."""

from __future__ import annotations

from happened import Bought, Registered

from gameserver import App, Message, Refuse, Router, Session
from people.services import Accounts, Mail, NotAllowed


class Register(Message):
    name: str


class ReadMail(Message):
    name: str


class Letters(Message):
    texts: list[str]


router = Router("people")


@router.on("register")
def register(session: Session, msg: Register, accounts: Accounts, app: App) -> None:
    try:
        accounts.register(msg.name)
    except NotAllowed as error:
        raise Refuse("not-allowed", str(error)) from None
    app.emit(Registered(msg.name), key=msg.name)


@router.on("mail")
def mail(session: Session, msg: ReadMail, mail: Mail) -> Letters:
    return Letters(mail.read(msg.name))


@router.on_event(Registered)
def welcome(event: Registered, mail: Mail) -> None:
    mail.send(event.name, f"Welcome, {event.name}!")


@router.on_event(Bought)
def receipt(event: Bought, mail: Mail) -> None:
    mail.send(event.name, f"You have bought a {event.item} for {event.price}.")
