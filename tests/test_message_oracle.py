"""Messages against google's protobuf: random schemas, random values, arbitrary bytes.

What differs is meant to, and stands in `MEANT`.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from google.protobuf import json_format, message
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemas import Case, cases, same, to_google

from gameserver import Message
from gameserver.errors import ProtocolError, SchemaError

MEANT = {
    "not a finite number": "a NaN position is an attack: floats are finite unless Range(finite=False) says otherwise",
    "is no value of enum": "enums of Python classes are closed: a handler's match knows all cases",
    "is not in": "Range, and the numbers narrower than protobuf's (u8)",
    "more than": "MaxLen; 32 messages within messages, not 100; 65536 items of one message",
    "is needed": "A | B without None has to be there",
}
"""Why we refuse what google takes: a part of the error's text, and the reason."""

MEANT_JSON = {
    "expected": "google's Python reads numbers as Python's int() and float() do (' 1', '1_000', 'inf', true), takes 1.5 and "
    "numbers of any size for enums, and hardly looks at base64; the JSON mapping has none of it",
}
"""The same of JSON; what we take, google takes."""

thorough = settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))


@thorough
@given(st.data())
def test_our_bytes_are_googles_and_our_reading_too(data: st.DataObject) -> None:
    case = data.draw(cases())
    value = data.draw(case.values)
    theirs = to_google(value, case.google).SerializeToString(deterministic=True)
    assert value.encode() == theirs
    assert same(case.cls.decode(theirs), value)


@thorough
@given(st.data())
def test_of_arbitrary_and_mutated_bytes_both_take_the_same(data: st.DataObject) -> None:
    case = data.draw(cases(exact=True))
    body = data.draw(st.one_of(st.binary(max_size=60), mutated(case)))
    try:
        theirs: message.Message | None = case.google.FromString(body)
    except message.DecodeError:
        theirs = None
    try:
        ours = case.cls.decode(body)
    except ProtocolError:
        assert theirs is None or too_deep(body), body.hex(" ")
        return
    except SchemaError as error:
        check_meant(error, MEANT)
        return
    assert theirs is not None, (body.hex(" "), ours)
    theirs.DiscardUnknownFields()
    quiet(theirs)
    assert ours.encode() == theirs.SerializeToString(deterministic=True), body.hex(" ")


def check_meant(error: SchemaError, meant: dict[str, str]) -> None:
    assert any(part in str(error) for part in meant), error


def mutated(case: Case) -> st.SearchStrategy[bytes]:
    """A message's bytes with one place cut, changed, doubled, or another message behind it (which merges)."""

    def change(value: Message, other: Message, kind: int, at: int, byte: int) -> bytes:
        body = value.encode()
        at %= len(body) + 1
        return [
            body[:at],
            body[:at] + bytes([byte]) + body[at:],
            body[:at] + bytes([byte]) + body[at + 1 :],
            body[:at] + body[at + 1 :],
            body + other.encode(),
            body[:at] + body[at // 2 :],
        ][kind]

    return st.builds(change, case.values, case.values, st.integers(0, 5), st.integers(0, 2**16), st.integers(0, 255))


def too_deep(body: bytes) -> bool:
    """Groups, which are unknown fields always, are all that can be deep in so few bytes."""
    return sum(byte & 7 == 3 for byte in body) > 32


def quiet(made: Any) -> None:
    """Makes signalling NaNs quiet, as Python's floats do."""
    for field, value in made.ListFields():
        if field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
            for key, item in list(value.items()):
                if hasattr(item, "ListFields"):
                    quiet(item)
                elif isinstance(item, float) and math.isnan(item):
                    value[key] = item
        elif field.is_repeated:
            for index, item in enumerate(value):
                if hasattr(item, "ListFields"):
                    quiet(item)
                elif isinstance(item, float) and math.isnan(item):
                    value[index] = item
        elif hasattr(value, "ListFields"):
            quiet(value)
        elif isinstance(value, float) and math.isnan(value):
            setattr(made, field.name, value)


@thorough
@given(st.data())
def test_json_is_googles(data: st.DataObject) -> None:
    case = data.draw(cases())
    value = data.draw(case.values)
    theirs = json_format.MessageToDict(
        to_google(value, case.google), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    ours = value.to_dict()
    assert alike(ours, theirs)
    assert json.loads(value.to_json()) == ours
    assert same(case.cls.from_json(value.to_json()), value)
    if not has_largest_f32(theirs):  # google's own parser does not take what its printer wrote
        camel = json_format.MessageToJson(to_google(value, case.google))
        assert same(case.cls.from_json(camel), value)
        back = json_format.Parse(value.to_json(), case.google())
        assert back.SerializeToString(deterministic=True) == value.encode() or "NaN" in value.to_json()


def alike(ours: Any, theirs: Any) -> bool:
    """Equal, but that google writes the smallest floats of 32 bits with more digits than it needs, and of two spellings that
    are as near (1048576.25 is half way between ...2 and ...3) the other one.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(alike(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float) and (0 < abs(ours) < 1.2e-38 or _are_short(ours, theirs)):
        return struct.pack("f", ours) == struct.pack("f", theirs)
    return type(ours) is type(theirs) and bool(ours == theirs)


def _are_short(*floats: float) -> bool:
    return all(abs(one) < 3e38 and float(f"{one:.8g}") == one for one in floats)


def has_largest_f32(shown: Any) -> bool:
    return "3.4028235e+38" in json.dumps(shown)


@thorough
@given(st.data())
def test_of_any_json_both_take_the_same(data: st.DataObject) -> None:
    case = data.draw(cases(exact=True))
    shown = data.draw(case.values).to_dict()
    assume(shown)
    at = data.draw(st.sampled_from(sorted(shown)))
    shown[at] = data.draw(
        st.one_of(
            st.integers(-(2**65), 2**65),
            st.floats(allow_nan=False, allow_infinity=False),
            st.sampled_from(
                ["", "1", "-1", "0x1", "1.5", "1e3", " 1", "NaN", "Infinity", "true", "COLOR_RED", "AA==", "-_8"]
            ),
            st.text(max_size=4),
            st.booleans(),
            st.just([]),
            st.just({}),
        )
    )
    assume(not has_largest_f32(shown))  # which google's own parser does not take
    text = json.dumps(shown)
    try:
        theirs: message.Message | None = json_format.Parse(text, case.google())
    except json_format.ParseError:
        theirs = None
    try:
        ours = case.cls.from_json(text)
    except SchemaError as error:
        if theirs is not None:
            check_meant(error, MEANT | MEANT_JSON)
        return
    assert theirs is not None, (text, ours)
    quiet(theirs)
    assert ours.encode() == theirs.SerializeToString(deterministic=True)
