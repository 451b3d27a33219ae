"""Call plans for services: resolved when the server starts, so that what lives as long as the app costs a call nothing.

dishka has the graph, makes what is made and ends it in order. Here is where each handler's services come from: constants that
become defaults of the function's last parameters, or a container of the session, of the room, of this one message.
"""

from __future__ import annotations

import asyncio
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from gameserver._core import Session
from gameserver._signature import Handler, Kind, Service, suggest
from gameserver._tasks import at_once
from gameserver.errors import ConfigError

if TYPE_CHECKING:
    from dishka import AsyncContainer, Provider
    from dishka.dependency_source import Factory
    from dishka.entities.scope import BaseScope

    from gameserver._app import App
    from gameserver._room import Room
    from gameserver.services import Scope

NEEDS = "services are wired by dishka, which is not installed: pip install 'gameserver[services]'"


@dataclass(frozen=True, slots=True)
class _Need:
    """A service that somebody names, and what it rests on."""

    service: Service
    scope: BaseScope
    scopes: frozenset[BaseScope]
    """Of all that has to be made for it."""
    is_async: bool
    """Something of that, which does not live as long as the app, has to be waited for."""
    has_async: bool
    """Something at all has to be waited for, be it the app's."""
    has_end: bool
    """Something of that lives as long as the message, and has to be ended."""


class Services:
    """An app's providers, and the containers of a run."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._providers: list[Provider] = []
        self._overrides: list[Provider] = []
        self._container: AsyncContainer | None = None
        self._factories: dict[Any, tuple[BaseScope, Factory]] = {}
        self._sessions: dict[int, AsyncContainer] = {}
        self._rooms: dict[int, AsyncContainer] = {}
        self._nobody: AsyncContainer | None = None  # of messages without a session: a timer's calls
        self._app_scoped: dict[Any, Any] = {}
        self._calls: dict[
            int, tuple[Handler, Handler]
        ] = {}  # by the id of a handler: itself, which stays, and the call
        self._closing: set[asyncio.Task[None]] = set()

    # -- what is given -------------------------------------------------------------------------------------------------

    def provide(self, where: str, providers: Sequence[Provider]) -> None:
        """Takes providers; see `App.provide`."""
        self._providers += _checked(where, providers)

    @contextmanager
    def override(self, where: str, providers: Sequence[Provider]) -> Iterator[None]:
        """Takes others in their place, for a while; see `App.override`."""
        if self._container is not None:
            raise ConfigError(f"{where}app.override(...): the server runs already; override before it starts")
        before = list(self._overrides)
        self._overrides += _checked(where, providers)
        try:
            yield
        finally:
            self._overrides = before

    # -- a run ---------------------------------------------------------------------------------------------------------

    async def start(self, handlers: Iterable[Handler], room_classes: Mapping[str, type[Room[Any]]]) -> None:
        """Makes what lives as long as the app, if anybody needs any; all else is checked.

        Raises:
            ConfigError: a service has no provider, or can't be had where it is named; says handler and parameter.
        """
        needing = [handler for handler in handlers if handler.services]
        inits = {name: services_of_init(cls) for name, cls in room_classes.items()}
        own = self._app._stores.providers()
        if not self._providers and not self._overrides and not own:
            for handler in needing:
                raise ConfigError(_unknown(handler.where, handler.services[0], ()))
            for services in inits.values():
                for service in services:
                    raise ConfigError(_unknown(service.where, service, ()))
            return
        self._build(own)
        for handler in needing:
            for need in self._needs(handler.where, handler.services):
                _check(handler, need)
        for services in inits.values():
            for service in services:
                (need,) = self._needs(service.where, [service])
                if not need.scopes <= {_scope().APP, _scope().ROOM}:
                    raise ConfigError(
                        f"{service.where}: parameter {service.name!r}: a room is there before its members: it gets what lives "
                        "as long as the app or the room"
                    )
        assert self._container is not None
        # All of them: a sync handler can't wait for the first to be made.
        for key, (scope, _) in self._factories.items():
            if scope is _scope().APP and (isinstance(key.type_hint, type) or typing.get_origin(key.type_hint)):
                self._app_scoped[key.type_hint] = await self._container.get(key.type_hint, key.component)

    def bound(self, handlers: Iterable[Handler]) -> list[Handler]:
        """The same handlers, as the core can call them."""
        return [self.bound_one(handler) for handler in handlers]

    def bound_one(self, handler: Handler) -> Handler:
        """One of them."""
        if not handler.services:
            return handler
        found = self._calls.get(id(handler))
        if found is None:
            found = self._calls[id(handler)] = handler, self._bound(handler)
        return found[1]

    async def open_room(self, room: Room[Any]) -> dict[str, Any]:
        """What the `__init__` of a room's class gets."""
        if self._container is None:
            return {}
        from gameserver._room import Room

        container = self._container(context={Room: room, Room[Any]: room, type(room): room}, scope=_scope().ROOM)
        self._rooms[room.number] = container
        return {service.name: await container.get(service.cls) for service in services_of_init(type(room))}

    def close_room(self, room: Room[Any]) -> None:
        """The room is no more."""
        self._close(self._rooms.pop(room.number, None))

    def leave(self, session: Session) -> None:
        """The session is no more, after its last handler."""
        self._close(self._sessions.pop(session.id, None))

    async def stop(self) -> None:
        """Ends what is left, the app's last."""
        for container in (*self._rooms.values(), *self._sessions.values(), self._nobody):
            self._close(container)
        self._rooms.clear()
        self._sessions.clear()
        self._nobody = None
        if self._closing:
            await asyncio.wait(self._closing)
        container, self._container = self._container, None
        self._app_scoped.clear()
        self._calls.clear()
        if container is not None:
            await self._end(container)

    def _close(self, container: AsyncContainer | None) -> None:
        if container is not None:
            loop = self._app._loop
            assert loop is not None
            task = loop.create_task(self._end(container))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, container: AsyncContainer) -> None:
        try:
            await container.close()
        except Exception as error:
            self._app._failed("the end of a service", error)

    def _build(self, of_stores: Sequence[Provider]) -> None:
        from dishka import Provider, make_async_container
        from dishka.entities.validation_settings import ValidationSettings
        from dishka.exception_base import DishkaError

        from gameserver._app import App
        from gameserver._room import Room

        scope = _scope()
        own = Provider()
        own.from_context(provides=App, scope=scope.APP)
        for cls in dict.fromkeys((Session, self._app._session_class)):
            own.from_context(provides=cls, scope=scope.SESSION)
        for kind in (Room, Room[Any], *(kind.cls for kind in self._app._rooms.types.values())):
            own.from_context(provides=kind, scope=scope.ROOM)
        try:
            self._container = make_async_container(
                own,
                *of_stores,
                *self._providers,
                *self._overrides,
                scopes=scope,
                context={App: self._app},
                lock_factory=None,
                validation_settings=ValidationSettings(implicit_override=False, nothing_overridden=False),
            )
        except DishkaError as error:
            raise ConfigError(f"app.provide(...): {error}") from error
        registry = self._container.registry
        while registry is not None:
            for key, factory in registry.factories.items():
                if key.type_hint is not type(self._container):
                    self._factories[key] = (registry.scope, factory)
            registry = registry.child_registry  # type: ignore[assignment]
        for key, (at, factory) in self._factories.items():
            if at is scope.ROOM and not {s for s, _ in self._rests_on(key)} <= {scope.ROOM, scope.APP}:
                raise ConfigError(
                    f"app.provide(...): {_spell(key.type_hint)} lives as long as a room, so it can't need what lives as long as a "
                    f"session or a message ({factory.source!r})"
                )

    def _needs(self, where: str, services: Iterable[Service]) -> list[_Need]:
        from dishka.entities.key import DependencyKey

        found = []
        scope = _scope()
        for service in services:
            key = DependencyKey(service.cls, "")
            if key not in self._factories:
                raise ConfigError(_unknown(where, service, self._factories))
            parts = [self._factories[key], *self._rests_on(key)]
            young = [factory for at, factory in parts if at is not scope.APP]
            of_message = [factory for at, factory in parts if at is scope.MESSAGE]
            found.append(
                _Need(
                    service,
                    self._factories[key][0],
                    frozenset(at for at, _ in parts),
                    any(factory.type.name.startswith("ASYNC") for factory in young),
                    any(factory.type.name.startswith("ASYNC") for _, factory in parts),
                    any("GENERATOR" in factory.type.name for factory in of_message),
                )
            )
        return found

    def _rests_on(self, key: Any) -> list[tuple[BaseScope, Factory]]:
        """All that has to be made for it, itself left out."""
        found: dict[Any, tuple[BaseScope, Factory]] = {}
        open_ = [key]
        while open_:
            at = open_.pop()
            _, factory = self._factories[at]
            for part in (*factory.dependencies, *factory.kw_dependencies.values()):
                if part in self._factories and part not in found:
                    found[part] = self._factories[part]
                    open_.append(part)
        return list(found.values())

    # -- call plans ----------------------------------------------------------------------------------------------------

    def _bound(self, handler: Handler) -> Handler:
        needs = self._needs(handler.where, handler.services)
        function = handler.call
        if all(need.scope is _scope().APP for need in needs):
            places = [need.service.place for need in needs]
            constants = [self._app_scoped[need.service.cls] for need in needs]
            return replace(handler, call=_with_constants(function, places, constants))
        in_room = handler.method_of is not None
        arguments, who = handler.arguments, None
        if _has_session(handler) and any(need.scope is not _scope().ROOM for need in needs):
            arguments = arguments if "s" in arguments else "s" + arguments
            who = arguments.index("s") + in_room
        own = len(handler.arguments) + in_room
        given = _Given(self, needs, in_room, who, own, drops_who=arguments != handler.arguments)
        call = given.call_async(function) if handler.is_async else given.call(function)
        return replace(handler, call=_like(call, function), arguments=arguments)

    def session_container(self, session: Session) -> AsyncContainer:
        """Of a session, from when it is first asked for."""
        container = self._sessions.get(session.id)
        if container is None:
            assert self._container is not None
            context = {Session: session, type(session): session}
            container = self._sessions[session.id] = self._container(context=context, scope=_scope().SESSION)
        return container

    def nobodys_container(self) -> AsyncContainer:
        """For what no session asks for."""
        if self._nobody is None:
            assert self._container is not None
            self._nobody = self._container(scope=_scope().SESSION)
        return self._nobody

    def room_container(self, room: Room[Any]) -> AsyncContainer:
        """Of a room that is open."""
        return self._rooms[room.number]


class _From(Enum):
    """Where a service comes from with each call."""

    APP = "it is a constant"
    SESSION = "the container of who sent the message, or nobody's"
    MESSAGE = "a container of this call"
    ROOM = "the room's container"


class _Given:
    """What one handler gets, with each call."""

    def __init__(
        self,
        services: Services,
        needs: Sequence[_Need],
        in_room: bool,
        who: int | None,
        parameters: int,
        *,
        drops_who: bool,
    ) -> None:
        self._services = services
        self._in_room, self._who, self._drops_who = in_room, who, drops_who
        places = [need.service.place for need in needs]
        self._places = None if places == [*range(parameters, parameters + len(places))] else places
        sources = [_From[need.scope.name] for need in needs]
        self._plan = [
            (source, need.service.cls, services._app_scoped.get(need.service.cls))
            for source, need in zip(sources, needs, strict=True)
        ]
        self._of_message = _From.MESSAGE in sources
        self._has_end = any(need.has_end for need in needs)
        self._is_all_sync = not any(need.has_async for need in needs)

    def call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Of a handler that does not wait: what is made for it does not wait either, which was checked."""
        is_all_sync, has_end = self._is_all_sync, self._has_end

        def call(*arguments: Any) -> Any:
            message, made = None, []
            error: BaseException | None = None
            try:
                outer = self._outer(arguments)
                message = outer() if self._of_message else None
                for source, cls, constant in self._plan:
                    container = self._container(source, arguments, outer, message)
                    if container is None:
                        made.append(constant)
                    elif is_all_sync:
                        made.append(container.get_sync(cls))
                    else:
                        made.append(at_once(container.get(cls)))
                return function(*self._placed(arguments, made))
            except BaseException as raised:
                error = raised
                raise
            finally:
                if has_end and message is not None:
                    at_once(message.close(error))

        return call

    def call_async(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        """Of one that may."""

        async def call(*arguments: Any) -> Any:
            message, made = None, []
            error: BaseException | None = None
            try:
                outer = self._outer(arguments)
                message = outer() if self._of_message else None
                for source, cls, constant in self._plan:
                    container = self._container(source, arguments, outer, message)
                    made.append(constant if container is None else await container.get(cls))
                return await function(*self._placed(arguments, made))
            except BaseException as raised:
                error = raised
                raise
            finally:
                if self._has_end and message is not None:
                    await message.close(error)

        return call

    def _outer(self, arguments: Sequence[Any]) -> AsyncContainer:
        """The container of who sent it; nobody's where nobody did."""
        if self._who is None:
            return self._services.nobodys_container()
        who = arguments[self._who]
        return self._services.session_container(who.session if self._in_room else who)

    def _container(
        self, source: _From, arguments: Sequence[Any], outer: AsyncContainer, message: AsyncContainer | None
    ) -> AsyncContainer | None:
        if source is _From.MESSAGE:
            return message
        if source is _From.APP:
            return None
        return outer if source is _From.SESSION else self._services.room_container(arguments[0])

    def _placed(self, arguments: tuple[Any, ...], made: list[Any]) -> Sequence[Any]:
        if self._places is None and not self._drops_who:
            return (*arguments, *made)
        placed = list(arguments)
        if self._drops_who and self._who is not None:
            del placed[self._who]
        if self._places is None:
            return placed + made
        for place, service in zip(self._places, made, strict=True):
            placed.insert(place, service)
        return placed


def services_of_init(cls: type[Any]) -> list[Service]:
    """What the `__init__` of a room's class names.

    Raises:
        ConfigError: a parameter without an annotation or a default.
    """
    init = cls.__init__
    if not isinstance(init, types.FunctionType):
        return []
    where = f"{init.__code__.co_filename}:{init.__code__.co_firstlineno}: {init.__module__}.{init.__qualname__}"
    hints = inspect.get_annotations(init, eval_str=True)
    found = []
    for place, parameter in enumerate([*inspect.signature(init).parameters.values()][1:]):
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if parameter.name not in hints:
            raise ConfigError(
                f"{where}: parameter {parameter.name!r} has no annotation; a room's __init__ takes services"
            )
        found.append(Service(parameter.name, hints[parameter.name], place, where))
    return found


def _check(handler: Handler, need: _Need) -> None:
    """A service can be had where it is named.

    Raises:
        ConfigError: it can't.
    """
    scope, name = _scope(), f"{handler.where}: parameter {need.service.name!r}: {_spell(need.service.cls)}"
    if scope.ROOM in need.scopes and handler.method_of is None:
        raise ConfigError(f"{name} lives as long as a room, and this is no handler of one")
    if scope.SESSION in need.scopes and not _has_session(handler):
        raise ConfigError(f"{name} lives as long as a session, and {handler.kind.decorator} has none")
    if handler.is_batch and need.scope is not scope.APP:
        raise ConfigError(f"{name}: a batch is of many sessions: it gets what lives as long as the app")
    if need.is_async and not handler.is_async:
        raise ConfigError(f"{name} has to be waited for, or what it needs has: make the handler async def")


def _has_session(handler: Handler) -> bool:
    # One that is refused never joins, and so never leaves.
    return handler.kind not in (Kind.TICK, Kind.EVERY, Kind.START, Kind.STOP, Kind.DRAIN, Kind.AUTHENTICATE, Kind.EVENT)


def _with_constants(
    function: Callable[..., Any], places: Sequence[int], constants: Sequence[Any]
) -> Callable[..., Any]:
    """A function that has its services. Where they stand last they become its defaults, which costs a call nothing."""
    code = getattr(function, "__code__", None)
    is_plain = isinstance(function, types.FunctionType) and not hasattr(function, "__wrapped__")
    if is_plain and code is not None and list(places) == list(range(code.co_argcount - len(places), code.co_argcount)):
        assert isinstance(function, types.FunctionType)
        bound = types.FunctionType(
            code, function.__globals__, function.__name__, tuple(constants), function.__closure__
        )
        bound.__kwdefaults__ = function.__kwdefaults__
        return _like(bound, function)

    def call(*arguments: Any) -> Any:
        placed = list(arguments)
        for place, constant in zip(places, constants, strict=True):
            placed.insert(place, constant)
        return function(*placed)

    return _like(call, function)


def _like(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    for name in ("__module__", "__qualname__", "__doc__"):
        if hasattr(function, name):
            setattr(call, name, getattr(function, name))
    return call


def _scope() -> type[Scope]:
    from gameserver.services import Scope

    return Scope


def _checked(where: str, providers: Sequence[Provider]) -> Sequence[Provider]:
    try:
        from dishka.provider import BaseProvider
    except ImportError:
        raise ConfigError(f"{where}{NEEDS}") from None
    for provider in providers:
        if not isinstance(provider, BaseProvider):
            raise ConfigError(f"{where}{provider!r}: give a dishka Provider (an object, not its class)")
    return providers


def _unknown(where: str, service: Service, known: Iterable[Any]) -> str:
    names = [_spell(key.type_hint) for key in known]
    return (
        f"{where}: parameter {service.name!r}: nothing provides {_spell(service.cls)}{suggest(_spell(service.cls), names)}; "
        "give a provider of it to app.provide(...), or annotate the parameter with what a handler gets by itself"
    )


def _spell(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
