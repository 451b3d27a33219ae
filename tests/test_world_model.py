"""Any sequence of changes, through the whole stack: each client's view, in Rust and in JavaScript, is what a plain model says.

The game is a real server; steps are requests, and a step is one tick. Clients watch, look elsewhere, own, lag behind, and come
back over another connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import IntEnum
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from js_world import JsWorlds, js_worlds, plain
from world_client import Watcher

from gameserver import (
    NOBODY,
    OTHERS,
    OWNER,
    App,
    Entity,
    MaxLen,
    Session,
    World,
    f32,
    i64,
    sync,
    u8,
    u16,
    u32,
    u64,
    vec2,
)
from gameserver.testing import running

CELL, VIEW, STEP = 10.0, 8.0, 0.25


class Mood(IntEnum):
    CALM = 1
    ANGRY = 2
    AWAY = -3


class Thing(Entity):
    x: f32 = sync(0, quantize=STEP)
    y: f32 = sync(0, quantize=STEP)
    hp: u16 = 100
    mood: Mood = Mood.CALM
    name: Annotated[str, MaxLen(8)] = ""
    gold: u64 = sync(0, to=OWNER)
    hand: Annotated[list[u8], MaxLen(4)] = sync([], to=OTHERS)
    target: Thing | None = None
    far: vec2 = sync((0, 0), quantize=STEP, interpolate=True)
    raw: Annotated[bytes, MaxLen(3)] = b""
    is_on: bool = False
    server: u32 = sync(7, to=NOBODY)


class Score(Entity, table="global"):
    points: i64 = 0
    purse: u8 = sync(0, to=OWNER)


class Clock(Entity, table="global"):
    step: u32 = 0


CLASSES: dict[str, type[Entity]] = {"Thing": Thing, "Score": Score}
DEFAULTS: dict[str, dict[str, Any]] = {
    "Thing": {
        "x": 0.0, "y": 0.0, "hp": 100, "mood": 1, "name": "", "gold": 0, "hand": [], "target": None, "far": [0.0, 0.0], "raw": b"",
        "is_on": False,
    },
    "Score": {"points": 0, "purse": 0},
}  # fmt: skip
TO = {("Thing", "gold"): "owner", ("Thing", "hand"): "others", ("Score", "purse"): "owner"}
ARRAYS = {"hp": np.uint16, "gold": np.uint64, "x": np.float32, "is_on": np.uint8}
Told = dict[tuple[str, int], dict[str, Any]]
"""By class and id."""
PLACES = st.integers(-100, 100).map(lambda steps: steps * STEP)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "hp": st.integers(0, 65535),
    "mood": st.sampled_from([1, 2, -3]),
    "name": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=2),
    "gold": st.integers(0, 2**64 - 1),
    "hand": st.lists(st.integers(0, 255), max_size=4),
    "far": st.lists(PLACES, min_size=2, max_size=2),
    "raw": st.binary(max_size=3).filter(lambda raw: not raw.endswith(b"\0")).map(lambda raw: raw.hex()),
    "is_on": st.booleans(),
    "x": PLACES,
    "y": PLACES,
    "points": st.integers(-(2**63), 2**63 - 1),
    "purse": st.integers(0, 255),
}


def game() -> App:
    world = World(cell=CELL, view=VIEW)
    app = App("model", tick_rate=500, world=world, resume_grace=60)
    entities: dict[int, Entity] = {}
    sessions: dict[str, Session] = {}

    @app.on_start
    def start() -> None:
        entities[0] = world.spawn(Clock)

    @app.on("hello")
    def hello(session: Session, body: bytes) -> None:
        sessions[body.decode()] = session

    def value(column: str, given: Any) -> Any:
        if column == "mood":
            return Mood(given)
        if column == "raw":
            return bytes.fromhex(given)
        return entities[given] if column == "target" and given is not None else given

    def run(verb: str, *given: Any) -> Any:
        match verb, given:
            case "spawn", (cls, number, owner, columns):
                columns = {name: value(name, one) for name, one in columns.items()}
                entity = world.spawn(CLASSES[cls], owner=sessions.get(owner), **columns)
                entities[number] = entity
                return entity.id
            case "despawn", (number,):
                entities.pop(number).despawn()
            case "own", (number, owner):
                entities[number].owner = sessions.get(owner)
            case "set", (number, column, one):
                setattr(entities[number], column, value(column, one))
            case "array", (column, numbers, values):
                rows = [entities[number].row for number in numbers]
                getattr(world.columns(Thing), column)[rows] = np.array(values, dtype=ARRAYS[column])
            case "watch", (who, look):
                world.watch(sessions[who], **look)
            case "follow", (who, number):
                world.follow(sessions[who], None if number is None else entities[number])
        return None

    @app.on("do")
    def do(body: bytes) -> Any:
        step, *ops = json.loads(body)
        clock = entities[0]
        assert isinstance(clock, Clock)
        clock.step = step
        return [run(*op) for op in ops]

    return app


class Viewer:
    """One client: what its two decoders have, and what it looks at."""

    def __init__(self, port: int, name: str, js: JsWorlds) -> None:
        self.name, self._port, self._js = name, port, js
        self.seen = 0
        self.token = ""
        self.look: tuple[str, Any] = ("own", None)
        self.following: int | None = None
        self.anchor: tuple[int, int] | None = None
        self.at: Any = None
        self.lags = 0
        self.told: dict[str, set[int]] = {}
        self.connect()
        self.ask("hello", name.encode())

    def connect(self) -> None:
        """For the first time, or once more."""
        goes_on = bool(self.token)
        resume = {"token": self.token, "seen": self.seen} if goes_on else {}
        hello = {"sys": {"gs": {"serializer": "json", "world": True, "schema": "", "resume": resume}}, "user": {}}
        self.watcher = Watcher(self._port, json.dumps(hello).encode())
        offer = self.watcher.answer["sys"]["gs"]["resume"]
        assert ("seen" in offer) == goes_on
        self.token = offer["token"]
        self._js.begin(self.name, self.watcher.world, goes_on=goes_on)
        self.first = True

    def ask(self, route: str, body: bytes) -> Any:
        """Answers are counted, for the next connection."""
        answer = self.watcher.request(route, body)
        self.seen += 1
        return answer

    def cut(self) -> None:
        """The connection, without a word; then another."""
        self.watcher.client.reset()
        self.connect()

    def until(self, step: int) -> dict[str, Any]:
        """Takes snapshots up to that of a step: what JavaScript has then."""
        while True:
            before = len(self.watcher.bytes)
            changes = self.watcher.take()
            state = self._js.apply(self.name, self.watcher.bytes[before:])
            assert "error" not in state, state
            self._same_story(changes, state["told"])
            if [clock for clock in state["entities"]["Clock"].values() if clock["step"] == step]:
                return state

    def _same_story(self, changes: list[tuple[str, str, int]], told: list[list[str]]) -> None:
        """Rust began anew with the connection, JavaScript went on: then they tell of the same in other words."""
        for verb, table, text in told:
            ids, entity_id = self.told.setdefault(table, set()), int(text)
            if verb == "add":
                assert entity_id not in ids
                ids.add(entity_id)
            elif verb == "remove":
                ids.remove(entity_id)
        if not self.first:
            own = {entity_id for _, entity_id in self.watcher.replica.owned()}
            visible = [story for story in told if story[0] != "change" or int(story[2]) not in own]
            rust = [
                [verb, table, str(entity_id)]
                for verb, table, entity_id in changes
                if verb != "change" or entity_id not in own
            ]
            assert sorted(rust) == sorted(visible)
        self.first = False


class Model(RuleBasedStateMachine):
    """Steps against the server and a plain model of it."""

    server: Any
    js: JsWorlds
    games = 0

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.held = 0
        self.numbers = 0
        self.entities: dict[int, dict[str, Any]] = {}
        self.owned: dict[str, list[int]] = {"Ann": [], "Bob": [], "Cem": []}
        self.ops: list[list[Any]] = []

    @initialize()
    def begin(self) -> None:
        self.context = running(game(), port=0)
        port = self.context.__enter__().port
        self.viewers = {name: Viewer(port, name, self.js) for name in self.owned}
        for owner, x, y in [("Ann", 0, 0), ("Bob", 9, 2), ("Cem", -8, 8), ("", 12, 3), ("", -14, -3), ("", 21, 20)]:
            self.spawn("Thing", owner, x, y, 100)
        self.spawn("Score", "Bob", 0, 0, 0)

    def teardown(self) -> None:
        if hasattr(self, "viewers"):
            for viewer in self.viewers.values():
                viewer.watcher.client.close()
            self.context.__exit__(None, None, None)

    # -- steps: each collects what one request does in one tick ---------------------------------------------------------

    @rule(
        cls=st.sampled_from(["Thing", "Thing", "Score"]),
        owner=st.sampled_from(["", "Ann", "Bob", "Cem"]),
        x=PLACES,
        y=PLACES,
        hp=VALUES["hp"],
    )
    def spawn_one(self, cls: str, owner: str, x: float, y: float, hp: int) -> None:
        """An entity."""
        self.spawn(cls, owner, x, y, hp)

    def spawn(self, cls: str, owner: str, x: float, y: float, hp: int) -> None:
        self.numbers += 1
        columns = {"x": x, "y": y, "hp": hp} if cls == "Thing" else {}
        values = {**DEFAULTS[cls], **columns}
        self.entities[self.numbers] = {"cls": cls, "owner": owner, "values": values, "cell": None, "id": None}
        if owner:
            self.owned[owner].append(self.numbers)
        self.ops.append(["spawn", cls, self.numbers, owner, columns])

    @precondition(lambda self: self.entities)
    @rule(data=st.data())
    def despawn(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.entities)))
        entity = self.entities.pop(number)
        if entity["owner"]:
            self.owned[entity["owner"]].remove(number)
        for other in self.entities.values():
            if other["values"].get("target") == number:
                other["values"]["target"] = None
        self.ops.append(["despawn", number])

    @precondition(lambda self: any(entity["cls"] == "Thing" for entity in self.entities.values()))
    @rule(data=st.data(), right=st.integers(-20, 20), down=st.integers(-20, 20))
    def move(self, data: st.DataObject, right: int, down: int) -> None:
        """A step, mostly across no border, or just across one."""
        things = sorted(number for number, entity in self.entities.items() if entity["cls"] == "Thing")
        number = data.draw(st.sampled_from(things))
        values = self.entities[number]["values"]
        for column, by in (("x", right * STEP), ("y", down * STEP)):
            values[column] += by
            self.ops.append(["set", number, column, values[column]])

    @precondition(lambda self: self.entities)
    @rule(data=st.data(), owner=st.sampled_from(["", "Ann", "Bob", "Cem"]))
    def give(self, data: st.DataObject, owner: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.entities)))
        entity = self.entities[number]
        if entity["owner"] != owner:
            if entity["owner"]:
                self.owned[entity["owner"]].remove(number)
            if owner:
                self.owned[owner].append(number)
            entity["owner"] = owner
        self.ops.append(["own", number, owner])

    @precondition(lambda self: self.entities)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.entities)))
        entity = self.entities[number]
        column = data.draw(st.sampled_from([*entity["values"]]))
        if column == "target":
            things = [other for other, that in self.entities.items() if that["cls"] == "Thing"]
            value: Any = data.draw(st.sampled_from([None, *things]))
        else:
            value = data.draw(VALUES[column])
        if column == "name" and len(value.encode()) > 8:
            return
        entity["values"][column] = bytes.fromhex(value) if column == "raw" else value
        self.ops.append(["set", number, column, value])

    @precondition(lambda self: any(entity["cls"] == "Thing" for entity in self.entities.values()))
    @rule(data=st.data(), column=st.sampled_from(sorted(ARRAYS)))
    def write_array(self, data: st.DataObject, column: str) -> None:
        things = sorted(number for number, entity in self.entities.items() if entity["cls"] == "Thing")
        numbers = data.draw(st.lists(st.sampled_from(things), unique=True, min_size=1))
        values = [data.draw(VALUES[column]) for _ in numbers]
        for number, value in zip(numbers, values, strict=True):
            self.entities[number]["values"][column] = value
        self.ops.append(["array", column, numbers, values])

    @rule(data=st.data(), name=st.sampled_from(["Ann", "Bob", "Cem"]))
    def look(self, data: st.DataObject, name: str) -> None:
        viewer = self.viewers[name]
        things = [number for number, entity in self.entities.items() if entity["cls"] == "Thing"]
        kind = data.draw(st.sampled_from(["own", "at", "cells", "everything", "nothing", *["entity"] * bool(things)]))
        given: Any = None
        match kind:
            case "own":
                self.ops.append(["follow", name, None])
            case "entity":
                given = data.draw(st.sampled_from(things))
                self.ops.append(["follow", name, given])
            case "at":
                given = [data.draw(PLACES), data.draw(PLACES)]
                self.ops.append(["watch", name, {"at": given, "radius": 15}])
            case "cells":
                given = [(0, 0), (1, -1), (-2, 0)]
                self.ops.append(["watch", name, {"cells": given}])
            case "everything":
                self.ops.append(["watch", name, {"everything": True}])
            case "nothing":
                self.ops.append(["watch", name, {}])
        viewer.look, viewer.following, viewer.at = (kind, given), None, None
        if kind == "own":
            viewer.look = ("own", None)

    @rule(count=st.integers(2, 6))
    def hold(self, count: int) -> None:
        """The next steps happen in one tick."""
        self.held = count

    @rule(name=st.sampled_from(["Ann", "Bob", "Cem"]), steps=st.integers(2, 5))
    def lag(self, name: str, steps: int) -> None:
        """It reads nothing for a while."""
        self.viewers[name].lags = steps

    @rule(name=st.sampled_from(["Bob", "Cem"]))
    def cut(self, name: str) -> None:
        self.viewers[name].cut()

    # -- what must hold after each ---------------------------------------------------------------------------------------

    @invariant()
    def everybody_sees_what_the_model_says(self) -> None:
        self.held = max(0, self.held - 1)
        if self.held or not hasattr(self, "viewers"):
            return
        self.step += 1
        ops, self.ops = self.ops, []
        answers = self.viewers["Ann"].ask("do", json.dumps([self.step, *ops]).encode())
        for op, entity_id in zip(ops, answers, strict=True):
            if op[0] == "spawn" and op[2] in self.entities:
                self.entities[op[2]]["id"] = entity_id
        for entity in self.entities.values():
            if entity["cls"] == "Thing":
                entity["cell"] = cell_from(entity["cell"], entity["values"]["x"], entity["values"]["y"])
        for viewer in self.viewers.values():
            self._looks(viewer)
            viewer.lags = max(0, viewer.lags - 1)
            if viewer.lags:
                continue
            state = viewer.until(self.step)
            note(f"step {self.step}: {viewer.name} looks at {viewer.look} from {viewer.anchor}")
            seen, own = self._expected(viewer)
            assert replica_of(viewer.watcher) == (seen, own)
            assert js_of(state) == (
                seen,
                {cls: {"id": entity_id, **values} for (cls, entity_id), values in own.items()},
            )

    def _looks(self, viewer: Viewer) -> None:
        """Where it looks from, at the end of a tick."""
        kind, given = viewer.look
        target = given if kind == "entity" else None
        if kind == "own":
            mine = [number for number in self.owned[viewer.name] if self.entities[number]["cls"] == "Thing"]
            if viewer.following not in mine:
                viewer.following = mine[0] if mine else viewer.following
            target = viewer.following
            if target is None:
                viewer.anchor = None
                return
        if kind in ("own", "entity"):
            if target in self.entities:
                viewer.anchor = self.entities[target]["cell"]
        elif kind == "at":
            if viewer.at != given:
                viewer.anchor, viewer.at = cell_from(viewer.anchor, *given), given
        else:
            viewer.anchor = None

    def _sees(self, viewer: Viewer, cell: tuple[int, int] | None) -> bool:
        kind, given = viewer.look
        if cell is None or kind == "everything":
            return True
        if kind == "nothing" or (kind not in ("cells",) and viewer.anchor is None):
            return False
        if kind == "cells":
            return cell in given
        assert viewer.anchor is not None
        radius = 15 if kind == "at" else VIEW
        gaps = [max(abs(one - other) - 1, 0) * CELL for one, other in zip(cell, viewer.anchor, strict=True)]
        return cell == viewer.anchor or (gaps[0] ** 2 + gaps[1] ** 2) ** 0.5 < radius

    def _expected(self, viewer: Viewer) -> tuple[Told, Told]:
        """What it has of each entity in view; what only it is told, of its own."""
        seen: dict[tuple[str, int], dict[str, Any]] = {}
        for entity in self.entities.values():
            cls, is_own, in_view = entity["cls"], entity["owner"] == viewer.name, self._sees(viewer, entity["cell"])
            told: dict[str, Any] = {}
            for column, value in entity["values"].items():
                to = TO.get((cls, column), "all")
                is_told = is_own if to == "owner" else in_view and (to == "all" or not is_own)
                if column == "target":
                    value = None if value is None else self.entities[value]["id"]
                told[column] = value if is_told else None
            if in_view:
                seen[cls, entity["id"]] = told
        own: Told = {}
        for number in self.owned[viewer.name]:
            entity = self.entities[number]
            private = [column for (cls, column), to in TO.items() if (cls, to) == (entity["cls"], "owner")]
            own[entity["cls"], entity["id"]] = {column: entity["values"][column] for column in private}
        return seen, own


def cell_from(old: tuple[int, int] | None, x: float, y: float) -> tuple[int, int]:
    """The cell of a place, for what was in `old`."""
    margin = CELL * 0.1
    if old is not None and all(
        cell * CELL - margin <= at < (cell + 1) * CELL + margin for at, cell in zip((x, y), old, strict=True)
    ):
        return old
    return int(x // CELL), int(y // CELL)


def replica_of(watcher: Watcher) -> tuple[Told, Told]:
    """What the core's decoder has."""

    def value(cls: str, entity_id: int, column: str) -> Any:
        found = watcher.value(cls, entity_id, column)
        return list(found) if isinstance(found, tuple) else found

    seen = {
        (cls, entity_id): {column: value(cls, entity_id, column) for column in columns}
        for cls, columns in DEFAULTS.items()
        for entity_id in watcher.ids(cls)
    }
    own = {
        (cls, entity_id): {
            column: value(cls, entity_id, column) for of, column in TO if (of, TO[of, column]) == (cls, "owner")
        }
        for cls, entity_id in watcher.replica.owned()
    }
    return seen, own


def js_of(state: dict[str, Any]) -> tuple[Told, dict[str, dict[str, Any]]]:
    """What the browser's decoder has: in view, and the newest of its own of each class."""
    seen: Told = {}
    for cls in DEFAULTS:
        for text, entity in state["entities"][cls].items():
            values = plain(entity)
            assert values.pop("id") == int(text)
            if "mood" in values:
                values["mood"] = Mood[values["mood"]].value
            seen[cls, int(text)] = values
    newest = {cls: plain(entity) for cls, entity in state["mine"].items() if entity is not None}
    private = {cls: ["id", *(column for of, column in TO if (of, TO[of, column]) == (cls, "owner"))] for cls in newest}
    return seen, {cls: {name: entity[name] for name in private[cls]} for cls, entity in newest.items()}


@pytest.fixture(scope="module")
def js() -> Iterator[JsWorlds]:
    with js_worlds() as worlds:
        yield worlds


def test_each_client_sees_what_the_model_says(js: JsWorlds) -> None:
    Model.js = js
    options = settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    run_state_machine_as_test(Model, settings=options)
