"""Mistakes that a checker must find: each of these lines is an error with the code that its comment names.

Read by mypy in strict mode with unused ignores as errors, so a mistake that is found no longer fails.
"""

from __future__ import annotations

from gameserver import (
    App,
    Entity,
    Left,
    MaxLen,
    Message,
    Range,
    Refuse,
    Router,
    Session,
    World,
    f32,
    load_protos,
    sync,
    u16,
    u32,
)

app = App("typed")


class Moved(Message):
    x: u32


App("typed", session=int)  # type: ignore[arg-type]
App(session=Session())  # type: ignore[arg-type]
Router(3)  # type: ignore[arg-type]
app.on(7)  # type: ignore[call-overload]
app.on("x", concurrent="yes")  # type: ignore[call-overload]
app.on("x")(3)  # type: ignore[type-var]
app.tick("x")  # type: ignore[type-var]
app.every("often")  # type: ignore[arg-type]
app.after("soon", print)  # type: ignore[arg-type]
app.after(1, None)  # type: ignore[arg-type]
app.task(print)  # type: ignore[arg-type]
app.include(app)  # type: ignore[arg-type]
app.push(3)  # type: ignore[call-overload]
app.push("x", {}, skip="ann")  # type: ignore[call-overload]
app.on("x", keep="newest")  # type: ignore[call-overload]
app.push(Moved)  # type: ignore[call-overload]
app.push(Moved(x=1), {})  # type: ignore[call-overload]
Session().push(3)  # type: ignore[arg-type]
app.messages(Moved(x=1))  # type: ignore[arg-type]
app.group(3)  # type: ignore[arg-type]
app.group("red").add("ann")  # type: ignore[arg-type]
app.user("ann").psuh("x")  # type: ignore[attr-defined]
app.user("ann").session.push("x")  # type: ignore[union-attr]
app.port = 3  # type: ignore[misc]
Session().id = 3  # type: ignore[misc]
Session().kick(3)  # type: ignore[arg-type]
Left.GONE  # type: ignore[attr-defined] # noqa: B018
Refuse()  # type: ignore[call-arg]
Refuse(404)  # type: ignore[arg-type]


class Point(Message):
    x: f32
    y: f32 = 0.0
    tags: list[str] = []


class Late(Message):
    a: u32 = 1
    b: u32  # type: ignore[misc]


Point()  # type: ignore[call-arg]
Point("1")  # type: ignore[arg-type]
Point(1, 2, [], 4)  # type: ignore[call-arg]
Point(1, z=2)  # type: ignore[call-arg]
Point(1, tags=[1])  # type: ignore[list-item]
Point(1).z  # type: ignore[attr-defined] # noqa: B018
Point(1).x = "1"  # type: ignore[assignment]
Point.decode("text")  # type: ignore[arg-type]
Point.from_json(3)  # type: ignore[arg-type]
load_protos(3)  # type: ignore[arg-type]
Range("a")  # type: ignore[arg-type]
MaxLen("a")  # type: ignore[arg-type]


class Avatar(Entity):
    x: f32
    hp: u16 = sync(100)


class Wrong(Entity):
    x: f32 = sync("a")  # type: ignore[assignment]
    hp: u16 = sync(1, to="owner")  # type: ignore[call-overload]


world = World()
world.spawn(Avatar)  # type: ignore[call-arg]
world.spawn(Avatar, x="1")  # type: ignore[arg-type]
world.spawn(Avatar, x=1, y=2)  # type: ignore[call-arg]
world.spawn(Avatar, x=1, owner="ann")  # type: ignore[arg-type]
world.spawn(int)  # type: ignore[type-var]
world.spawn(Avatar, x=1).z  # type: ignore[attr-defined] # noqa: B018
world.spawn(Avatar, x=1).hp = "1"  # type: ignore[assignment]
App(world=3)  # type: ignore[arg-type]
