"""Signed tickets: what is forged, old, used or another game's gets nobody in."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from conftest import Serve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from wire_client import Client

from gameserver import App, ConfigError, Refuse
from gameserver.auth import Tickets

SECRET = b"a secret of 64 bytes or more, so that HS512 has enough of it, too ......"
OTHER = b"another secret of 32 bytes or more"
PRIVATE = Ed25519PrivateKey.generate()
PRIVATE_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC_PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Wall:
    """A clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def refused(tickets: Tickets, ticket: Any) -> str:
    with pytest.raises(Refuse) as refusal:
        tickets.check(ticket)
    return refusal.value.code


def forged(wall: Wall, key: Any = SECRET, algorithm: str = "HS256", kid: str = "", **claims: Any) -> str:
    body = {"sub": "ann", "aud": "arena", "exp": wall.now + 60, "jti": "1", **claims}
    kept = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


@pytest.mark.parametrize("keys", [SECRET, {"a": OTHER, "b": SECRET}, PRIVATE_PEM, {"k": PRIVATE_PEM.decode()}])
def test_what_was_signed_is_good_once(keys: Any) -> None:
    wall = Wall()
    tickets = Tickets(keys, audience="arena", issuer="login", wall=wall)
    ticket = tickets.sign("ann", seconds=60, role="admin")
    claims = tickets.check(ticket)
    assert (claims.uid, claims.claims["role"], claims.expires) == ("ann", "admin", wall.now + 60)
    assert refused(tickets, ticket) == "ticket-used"
    assert tickets.check(tickets.sign("ann")).uid == "ann"
    wall.now += 66
    assert refused(tickets, ticket) == "ticket-expired"
    assert not tickets._used - {name for _, name in tickets._over}


def test_a_service_signs_what_a_server_can_only_check() -> None:
    service, server = Tickets({"k": PRIVATE_PEM}, audience="arena"), Tickets({"k": PUBLIC_PEM}, audience="arena")
    assert server.check(service.sign("ann")).uid == "ann"
    with pytest.raises(ConfigError, match="a public one"):
        server.sign("ann")


def test_keys_rotate() -> None:
    old, both = Tickets({"1": OTHER}, audience="arena"), Tickets({"1": OTHER, "2": SECRET}, audience="arena")
    new = Tickets({"2": SECRET}, audience="arena")
    assert both.check(old.sign("ann")).uid == "ann"
    assert new.check(both.sign("ann")).uid == "ann"
    assert refused(new, old.sign("ann")) == "bad-ticket"


def test_what_is_forged_is_refused() -> None:
    wall = Wall()
    tickets = Tickets(SECRET, audience="arena", issuer=None, wall=wall)
    assert tickets.check(forged(wall)).uid == "ann"
    wrong = {
        "another key": forged(wall, OTHER),
        "another game's": forged(wall, aud="chess", jti="2"),
        "no game's": forged(wall, aud=None, jti="2"),
        "nobody's": forged(wall, sub=None, jti="2"),
        "a number's": jwt.encode({"sub": 5, "aud": "arena", "exp": wall.now + 60, "jti": "2"}, SECRET),
        "endless": forged(wall, exp=None, jti="2"),
        "of no number": forged(wall, exp="soon", jti="2"),
        "for ever": forged(wall, jti=None),
        "not yet": forged(wall, nbf=wall.now + 30, jti="2"),
        "unsigned": jwt.encode({"sub": "ann", "aud": "arena", "exp": wall.now + 60, "jti": "2"}, "", algorithm="none"),
        "an unknown key's": forged(wall, kid="x", jti="2"),
        "another way": forged(wall, algorithm="HS512", jti="2"),
        "too long": forged(wall, jti="2", more="x" * 5000),
    }
    assert {name: refused(tickets, ticket) for name, ticket in wrong.items()} == dict.fromkeys(wrong, "bad-ticket")
    assert refused(tickets, forged(wall, exp=wall.now - 6, jti="2")) == "ticket-expired"
    # A public key is no secret: HMAC with it gets nobody in.
    public = Tickets(PUBLIC_PEM, audience="arena", wall=wall)
    header = json.dumps({"alg": "HS256", "typ": "JWT"}).encode()
    body = json.dumps({"sub": "ann", "aud": "arena", "exp": wall.now + 60, "jti": "3"}).encode()
    unsigned = b".".join(jwt.utils.base64url_encode(part) for part in (header, body))
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(unsigned, PUBLIC_PEM)
    assert refused(public, (unsigned + b"." + jwt.utils.base64url_encode(mac)).decode()) == "bad-ticket"


def test_an_issuer_is_asked_for() -> None:
    wall = Wall()
    tickets = Tickets(SECRET, audience="arena", issuer="login", wall=wall)
    assert refused(tickets, forged(wall)) == "bad-ticket"
    assert refused(tickets, forged(wall, iss="other")) == "bad-ticket"
    assert tickets.check(forged(wall, iss="login")).uid == "ann"


def test_what_is_remembered_is_bounded() -> None:
    wall = Wall()
    tickets = Tickets(SECRET, audience="arena", remembered_max=2, wall=wall)
    for _ in range(2):
        tickets.check(tickets.sign("ann", seconds=10))
    assert refused(tickets, tickets.sign("ann")) == "busy"
    wall.now += 16
    assert tickets.check(tickets.sign("ann")).uid == "ann"


@given(
    st.one_of(st.text(max_size=80), st.binary(max_size=20), st.none(), st.integers(), st.lists(st.none(), max_size=2))
)
def test_anything_at_all_is_refused(ticket: Any) -> None:
    assert refused(Tickets(SECRET, audience="arena"), ticket) in ("bad-ticket", "no-ticket")


@given(st.data())
def test_any_change_is_refused(data: st.DataObject) -> None:
    tickets = Tickets(SECRET, audience="arena", wall=Wall())
    ticket = tickets.sign("ann")
    place = data.draw(st.integers(0, len(ticket) - 2))  # the last letter's lowest bits are none of the signature
    letter = data.draw(st.sampled_from("abcXYZ019-_.").filter(lambda letter: letter != ticket[place]))
    assert refused(tickets, ticket[:place] + letter + ticket[place + 1 :]) == "bad-ticket"


def test_mistakes_are_found_at_once() -> None:
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for keys, text in (
        (b"short", "at least 32"),
        ({}, "at least one key"),
        (rsa, "of another kind"),
        (b"-----BEGIN PUBLIC KEY-----\nnone", "can be read"),
    ):
        with pytest.raises(ConfigError, match=text):
            Tickets(keys, audience="arena")
    with pytest.raises(ConfigError, match="audience"):
        Tickets(SECRET, audience="")


def test_a_stolen_ticket_is_of_no_use(serve: Serve) -> None:
    app, tickets = App("doors"), Tickets(SECRET, audience="doors")

    @app.authenticate
    def who(user: dict[str, Any]) -> str:
        return tickets.check(user.get("ticket")).uid

    def knock(port: int, ticket: Any) -> Any:
        client = Client(port)
        return client.handshake(json.dumps({"sys": {}, "user": {"ticket": ticket}}).encode())

    with serve(app) as server:
        ticket = tickets.sign("ann")
        assert knock(server.port, ticket)["code"] == 200
        assert server.call(lambda: app.user("ann").session is not None)
        again = knock(server.port, ticket)
        assert again["code"] != 200
        assert "ticket-used" in json.dumps(again)
        assert knock(server.port, None)["code"] != 200
        while Client.opened:
            Client.opened.pop().close()
