"""The world without a server: entities, columns, queries."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_entity import ENTITY_TYPE, Everything, Later, Level, Team

from gameserver import ConfigError, Entity, EntityGone, MaxLen, SessionClosed, World, f32, f64, i8, sync, u8, u64, vec2
from gameserver import Session as PlainSession


class Player(Entity):
    x: f32 = sync(0, quantize=0.01)
    y: f32 = sync(0, quantize=0.01)
    hp: u8 = 100
    name: Annotated[str, MaxLen(8)] = ""
    target: Player | None = None


class Food(Entity):
    x: f32
    y: f32 = 0.0


def everything(world: World, **given: Any) -> Everything:
    return world.spawn(Everything, **{"at": (1, 2), "curve": [0.5], **given})


def test_an_entity_has_what_its_spawn_gave_and_defaults() -> None:
    world = World()
    later = world.spawn(Later)
    one = everything(world, hp=7, friend=later, team=Team.BLUE)
    assert (one.x, one.y, one.hp, one.gold, one.secret) == (1.0, 0.0, 7, 0, 2**64 - 1)
    assert (one.aim, one.at, one.curve, one.hand) == ((1.0, 2.0, 3.0), (1.0, 2.0), [0.5], [1, 255])
    assert (one.team, one.level, one.name, one.raw, one.is_on) == (Team.BLUE, Level.LOW, "ünd", b"\0a", True)
    assert (one.target, one.friend, one.owner, one.keep) == (None, later, None, False)
    assert type(one.friend) is Later
    assert repr(world) == "<World: Everything 1, Later 1>" or repr(world) == "<World: Later 1, Everything 1>"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x", [0.5, -3, np.float32(2.5), np.int8(3), True]),
        ("hp", [0, 65535, np.uint16(7)]),
        ("secret", [0, 2**64 - 1, 2**63]),
        ("aim", [(1.0, 2.0, -3.0), [4, 5, 6], np.array([1.5, 2.5, 3.5])]),
        ("at", [(0.25, -8.0)]),
        ("team", list(Team)),
        ("level", list(Level)),
        ("name", ["", "a", "ééa", "12345"]),
        ("raw", [b"", b"\0\0a", b"abc"]),
        ("hand", [[], [0], (1, 2, 3, 4), np.array([9, 8])]),
        ("curve", [[], [1e300, -0.0]]),
        ("is_on", [True, False, np.bool_(True)]),
    ],
)
def test_what_is_written_is_read(name: str, values: list[Any]) -> None:
    one = everything(World())
    for value in values:
        setattr(one, name, value)
        read = getattr(one, name)
        expected = list(value) if name in ("hand", "curve") else tuple(value) if name in ("aim", "at") else value
        assert read == expected
        assert getattr(everything(World(), **{name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("x", "1", TypeError, "it is no number"),
        ("x", None, TypeError, "it is no number"),
        ("x", math.nan, ValueError, "f32 has to be finite"),
        ("x", math.inf, ValueError, "f32 has to be finite"),
        ("x", 1e39, ValueError, "f32"),
        ("x", 2**31 / 100 + 1, ValueError, "too large for f32 in steps of 0.01"),
        ("hp", -1, ValueError, "u16 holds 0 to 65535"),
        ("hp", 65536, ValueError, "u16 holds 0 to 65535"),
        ("hp", 2**100, ValueError, "u16 holds 0 to 65535"),
        ("hp", 1.0, TypeError, "it is no whole number"),
        ("secret", 2**64, ValueError, "u64 holds 0 to 18446744073709551615"),
        ("secret", -1, ValueError, "u64 holds"),
        ("aim", (1, 2), ValueError, "has 2 numbers, the vector 3"),
        ("aim", 3, TypeError, "it is not a vector"),
        ("aim", "abc", TypeError, "it is no vector"),
        ("team", 0, TypeError, "it is no Team"),
        ("team", Level.LOW, TypeError, "it is no Team"),
        ("name", "ééé", ValueError, "has 6 bytes, MaxLen allows 5"),
        ("name", "a\0b", ValueError, "NUL"),
        ("name", b"a", TypeError, "it is no str"),
        ("raw", "a", TypeError, "it is no bytes"),
        ("hand", [1, 2, 3, 4, 5], ValueError, "has 5 items, MaxLen allows 4"),
        ("hand", [256], ValueError, "u8 holds 0 to 255"),
        ("hand", ["a"], TypeError, "it is no whole number"),
        ("is_on", 1, TypeError, "it is no bool"),
        ("target", 3, TypeError, "it is no entity"),
    ],
)
def test_a_wrong_value_says_entity_column_and_value(name: str, value: Any, error: type[Exception], text: str) -> None:
    world = World()
    one = everything(world)
    before = getattr(one, name)
    with pytest.raises(error, match=text) as caught:
        setattr(one, name, value)
    assert str(caught.value).startswith(f"Everything 1.{name} = {value!r}: "), caught.value
    assert getattr(one, name) == before
    with pytest.raises(error, match=text) as caught:
        everything(world, **{name: value})
    assert str(caught.value).startswith(f"Everything.{name} = ")
    assert world.count(Everything) == 1


def test_a_spawn_says_what_it_was_not_given() -> None:
    world = World()
    with pytest.raises(TypeError, match=r"Food.x has no default: world.spawn\(Food, x=...\)"):
        world.spawn(Food)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match='Food has no column "z"'):
        world.spawn(Food, x=1, z=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'name'"):
        world.spawn(Player, nmae="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="by their names"):
        world.spawn(Food, 1)  # type: ignore[arg-type,call-arg]
    with pytest.raises(TypeError, match="Food.owner is a Session or None"):
        world.spawn(Food, x=1, owner=3)  # type: ignore[arg-type]
    with pytest.raises(SessionClosed, match="no server shows this world"):
        world.spawn(Food, x=1, owner=PlainSession())
    with pytest.raises(TypeError, match="is no subclass of Entity"):
        world.spawn(int)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match=r"World\(cell=0\): a length above 0"):
        World(cell=0)


def test_a_stale_handle_raises_and_never_reads_another_entity() -> None:
    world = World()
    one = world.spawn(Player, hp=1)
    other = world.spawn(Player, hp=2, target=one)
    one.despawn()
    for use in (lambda: one.hp, lambda: setattr(one, "hp", 3), lambda: one.row, one.despawn, lambda: one.owner):
        with pytest.raises(EntityGone, match="Player 1 is gone: it was despawned"):
            use()
    assert (other.target, repr(one), one.is_live, one in world) == (None, "<Player 1, gone>", False, False)
    world._core.end_tick()
    new = world.spawn(Player, hp=9)
    assert (new.hp, new == one, new.id == one.id) == (9, False, False)
    with pytest.raises(EntityGone):
        one.hp  # noqa: B018
    assert other.target is None


def test_two_handles_to_one_entity_are_equal() -> None:
    world = World()
    one = world.spawn(Player)
    (same,) = world.at(Player, [0])
    assert same == one
    assert hash(same) == hash(one)
    assert same is not one
    assert one != world.spawn(Player)
    assert one != World().spawn(Player)
    assert one != 3


def test_an_entity_of_another_world_is_refused() -> None:
    world, other = World(), World()
    one, stranger = world.spawn(Player), other.spawn(Player)
    with pytest.raises(ValueError, match="Player 1 is of another world"):
        one.target = stranger
    with pytest.raises(TypeError, match="is of another world"):
        world.near(stranger, 1)
    assert stranger not in world


def test_columns_are_live_and_write_through() -> None:
    world = World()
    players = [world.spawn(Player, x=i, hp=i, name=f"p{i}") for i in range(5)]
    columns = world.columns(Player)
    assert len(columns) == 5
    assert (columns.x.dtype, columns.hp.dtype, columns.name.dtype, columns.target.dtype) == ("f4", "u1", "S8", "u8")
    columns.x += 10
    columns.hp = np.minimum(columns.hp * 2, 5)
    columns.name[2] = b"two"
    assert [p.x for p in players] == [10, 11, 12, 13, 14]
    assert [p.hp for p in players] == [0, 2, 4, 5, 5]
    assert players[2].name == "two"
    players[0].x = -1
    assert columns.x[0] == -1
    with pytest.raises(AttributeError, match="Player has no column 'hpp'; did you mean 'hp'"):
        columns.hpp = 3
    with pytest.raises(AttributeError, match="columns are: x, y, hp, name, target"):
        columns.qqqqqq  # noqa: B018
    assert list(columns.ids) == [p.id for p in players]


def test_columns_have_the_dtype_of_their_kind() -> None:
    world = World()
    one = everything(world)
    columns = world.columns(Everything)
    assert columns.at.shape == (1, 2)
    assert (columns.at.dtype, columns.aim.dtype, columns.team.dtype, columns.is_on.dtype) == ("f4", "f8", "i4", "?")
    columns.at[0] = (7, 8)
    columns.hand["count"][0] = 3
    columns.hand["items"][0] = [5, 6, 7, 8]
    columns.team[0] = Team.BLUE.value
    assert (one.at, one.hand, one.team) == ((7, 8), [5, 6, 7], Team.BLUE)
    one.curve = [1.5, 2.5]
    assert columns.curve["items"][0].tolist() == [1.5, 2.5]
    assert columns.raw[0] == b"\0a"


def test_a_view_keeps_its_length_and_its_memory() -> None:
    world: World | None = World()
    assert world is not None
    world.spawn_many(Food, 3, x=[1, 2, 3])
    view = world.columns(Food).x
    address = view.ctypes.data
    world.spawn_many(Food, 50_000, x=7)
    assert len(view) == 3
    assert world.columns(Food).x.ctypes.data == address  # columns never move
    now = world.columns(Food)
    assert world.columns(Food) is now  # and are made once, until somebody comes or goes
    assert now.x is now.x
    assert len(now) > len(view)
    world = None
    gc.collect()
    view[1] = 20
    assert view.tolist() == [1, 20, 3]


def test_no_row_no_memory() -> None:
    columns = World().columns(Food)
    assert (len(columns), columns.x.shape, columns.x.dtype) == (0, (0,), "f4")


def test_a_world_and_its_entities_are_freed() -> None:
    world = World()
    one = world.spawn(Player)
    ref = weakref.ref(one)
    del one
    assert ref() is None
    gone = weakref.ref(world)
    columns = world.columns(Player)
    del world
    assert gone() is None
    assert columns.hp.tolist() == [] or columns.hp.tolist() == [100]


def test_many_at_once() -> None:
    world = World()
    rows = world.spawn_many(Food, 4, x=[1, 2, 3, 4], y=0.5)
    assert rows.tolist() == [0, 1, 2, 3]
    assert world.spawn_many(Food, 2, x=9).tolist() == [4, 5]
    assert world.despawn_rows(Food, [1, 3, 3]) == 2
    assert world.count(Food) == 6  # until the tick ends
    with pytest.raises(EntityGone, match="row 1 is gone"):
        world.at(Food, [1])
    with pytest.raises(IndexError, match="Food has no row 6: there are 6"):
        world.at(Food, [6])
    with pytest.raises(IndexError, match="0 or more"):
        world.at(Food, [-1])
    with pytest.raises(IndexError, match="np.flatnonzero"):
        world.at(Food, np.array([True, False]))
    assert world.query(Food).tolist() == [0, 2, 4, 5]
    world._core.end_tick()
    assert world.count(Food) == 4
    assert sorted(world.columns(Food).x.tolist()) == [1, 3, 9, 9]
    assert sorted(one.x for one in world.each(Food)) == [1, 3, 9, 9]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"y": 1}, TypeError, "Food.x has no default"),
        ({"x": [1, 2]}, ValueError, r"Food.x: an array of shape \(2,\) for 3 rows"),
        ({"x": "abc"}, TypeError, "Food.x: an array of <U3, the column is float32"),
        ({"x": 1, "z": 1}, TypeError, "Food has no column 'z'"),
    ],
)
def test_many_say_what_is_wrong_and_none_is_spawned(given: Any, error: type[Exception], text: str) -> None:
    world = World()
    with pytest.raises(error, match=text):
        world.spawn_many(Food, 3, **given)
    assert world.count(Food) == 0
    with pytest.raises(ValueError, match="how many"):
        world.spawn_many(Food, -1)


def test_texts_of_many() -> None:
    world = World()
    world.spawn_many(Player, 2, name=["ann", "béb"])
    assert [one.name for one in world.each(Player)] == ["ann", "béb"]
    with pytest.raises(ValueError, match="texts of up to 9 bytes, MaxLen allows 8"):
        world.spawn_many(Player, 1, name="123456789")


def test_query_near_pairs() -> None:
    world = World(cell=10, view=20)
    one = world.spawn(Player, x=0, y=0)
    two = world.spawn(Player, x=3, y=4)
    far = world.spawn(Player, x=30)
    world.spawn_many(Food, 3, x=[1, 50, 2])
    assert world.near(one, 5) == [two]
    assert world.near(one, 4.9) == []
    assert world.near(far, 100) == [one, two]
    assert world.query(Player, x=(0, 10)).tolist() == [0, 1]
    assert world.query(Player, x=(0, 10), y=(1, 10), hp=(100, 100)).tolist() == [1]
    found = world.pairs(Player, Food, 5)
    assert [rows.tolist() for rows in found] == [[0, 0, 1, 1], [0, 2, 0, 2]]
    assert [rows.tolist() for rows in world.pairs(Player, Player, 5)] == [[0], [1]]
    with pytest.raises(TypeError, match="Player.name is no number: query takes numbers alone"):
        world.query(Player, name=(1, 2))
    with pytest.raises(TypeError, match="give the ends of the range"):
        world.query(Player, x=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Later is not on the grid"):
        world.near(world.spawn(Later), 3)
    two.despawn()
    assert world.near(one, 5) == []


def test_a_world_is_used_by_one_thread_at_a_time_before_its_server_runs() -> None:
    world = World()
    one = world.spawn(Player, hp=1)
    seen: list[Any] = []

    def use() -> None:
        seen.append(one.hp)
        one.hp = 2

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert (seen, one.hp) == ([1], 2)


def test_two_classes_of_one_name_are_told_apart_by_an_error() -> None:
    world = World()
    made = [ENTITY_TYPE("Same", (Entity,), {"__annotations__": {"a": u8}, "a": 0}) for _ in range(2)]
    world.spawn(made[0])
    with pytest.raises(ConfigError, match="Same is the name of .*Same and of .*Same: clients know a class by its name"):
        world.spawn(made[1])


class Nosy:
    """A number whose conversion comes back to the world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __index__(self) -> int:
        self.world.spawn(Player)
        return 7


def test_a_value_that_calls_back_is_no_danger() -> None:
    world = World()
    one = world.spawn(Player)
    one.hp = Nosy(world)  # type: ignore[assignment]
    assert (one.hp, world.count(Player)) == (7, 2)

    class Leaver:
        def __index__(self) -> int:
            one.despawn()
            return 5

    with pytest.raises(EntityGone):
        one.hp = Leaver()  # type: ignore[assignment]


numbers: dict[str, st.SearchStrategy[Any]] = {
    "a": st.integers(-128, 127),
    "b": st.integers(0, 2**64 - 1),
    "c": st.floats(width=64, allow_nan=False, allow_infinity=False),
}


class Model(Entity, table="global"):
    a: i8 = 0
    b: u64 = 0
    c: f64 = 0.0
    v: vec2 = (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_handles_rows_and_columns_agree_with_a_dict(data: st.DataObject) -> None:
    world = World()
    model: dict[Any, dict[str, Any]] = {}
    gone: list[Any] = []
    for _ in range(data.draw(st.integers(0, 40))):
        match data.draw(st.sampled_from(["spawn", "spawn", "many", "write", "column", "despawn", "tick"])):
            case "spawn":
                values: dict[str, Any] = data.draw(st.fixed_dictionaries({}, optional=numbers))
                model[world.spawn(Model, **values)] = {"a": 0, "b": 0, "c": 0.0, **values}
            case "many":
                many: list[Any] = data.draw(st.lists(numbers["a"], max_size=4))
                rows = world.spawn_many(Model, len(many), a=many)
                for one, value in zip(world.at(Model, rows), many, strict=True):
                    model[one] = {"a": value, "b": 0, "c": 0.0}
            case "write" if model:
                one, name = data.draw(st.sampled_from([*model])), data.draw(st.sampled_from([*numbers]))
                model[one][name] = data.draw(numbers[name])
                setattr(one, name, model[one][name])
            case "column" if model:
                one, name = data.draw(st.sampled_from([*model])), data.draw(st.sampled_from([*numbers]))
                model[one][name] = data.draw(numbers[name])
                getattr(world.columns(Model), name)[one.row] = model[one][name]
            case "despawn" if model:
                one = data.draw(st.sampled_from([*model]))
                one.despawn()
                del model[one]
                gone.append(one)
            case "tick":
                world._core.end_tick()
                assert world.count(Model) == len(model)
        for one, values in model.items():
            assert {name: getattr(one, name) for name in numbers} == values
        assert {*world.each(Model)} == {*model}
        assert not any(one.is_live for one in gone)
