//! One turn as Python sees it: what came in, in order, becomes calls of handlers; what they return, answers.
//!
//! No guard of the core is held while Python runs: handlers push, kick and start timers in the middle of it.

use engine::event::{LinkId, Message, Messages, RouteId, Transport, Up, UpLog};
use engine::realm::{CircleId, Event, Left, RoomNumber};
use engine::session::SessionKey;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyType};
use wire::handshake::Serializer;

use crate::batch;
use crate::error::REFUSE;
use crate::handler::{Failure, Given, Handler, Table, Way};
use crate::room::Place;
use crate::scope::Scope;
use crate::scratch::Lent;
use crate::seat::Waiting;
use crate::session::Session;
use crate::state::Turn;
use crate::task::{self, After};
use crate::typed::Answer;
use crate::value::Body;
use crate::world::entity::EntityBase;
use crate::world::turn;

/// Who asked what, and how to answer: a session, on its link; `request` is the id, `None` for a notify.
#[derive(Clone, Copy)]
pub struct Asker {
    pub key: SessionKey,
    pub link: LinkId,
    pub request: Option<u32>,
    pub route: RouteId,
    /// The number that the message names, or of the room whose it is; 0: the app's.
    pub room: RoomNumber,
    pub serializer: Serializer,
}

/// Everything that one reactor brought, in order.
pub fn log(py: Python<'_>, core: &Scope<'_, '_>, ups: &UpLog) -> PyResult<()> {
    let (table, rust_echo) = {
        let state = core.enter()?;
        (state.table.clone(), state.rust_echo)
    };
    let mut rest = &ups.events[..];
    while let [up, behind @ ..] = rest {
        let from_here = std::mem::replace(&mut rest, behind);
        match *up {
            Up::Messages { link, route, room: 0, packets, .. } if rust_echo == Some(route) => {
                echo(core, link, ups.messages(packets))?;
            }
            Up::Messages { link, route, room, packets, .. } => match table.way(route, room) {
                Way::Called(handler) => plain(py, core, handler, (link, route), ups.messages(packets))?,
                Way::Batched(index) => {
                    let taken = batch::add_run(py, core, (route, index), from_here, ups)?;
                    rest = &from_here[taken..];
                }
                Way::Other => {
                    for asked in ups.messages(packets) {
                        message(py, core, &table, (link, route, room), asked)?;
                    }
                }
            },
            Up::Opened { link, transport: Transport::Http, tls, address } => {
                let address = String::from_utf8_lossy(ups.bytes(address)).into_owned();
                core.enter()?.http_links.insert(link);
                http(py, core, "opened", (link.to_bits(), address, tls))?;
            }
            Up::HttpBytes { link, body } => {
                http(py, core, "received", (link.to_bits(), PyBytes::new(py, ups.bytes(body))))?;
            }
            Up::HttpEnded { link } => http(py, core, "ended", (link.to_bits(),))?,
            Up::HttpDrained { link } => http(py, core, "drained", (link.to_bits(),))?,
            Up::Closed { link, .. } if core.enter()?.http_links.remove(&link) => {
                core.enter()?.handle_up(up, ups);
                http(py, core, "closed", (link.to_bits(),))?;
            }
            Up::Sent { link, .. } => {
                core.enter()?.handle_up(up, ups);
                let key = core.enter()?.server.realm.session_of(link);
                if let Some(key) = key {
                    resume_waiting(py, core, key)?;
                }
            }
            _ => {
                core.enter()?.handle_up(up, ups);
                events(py, core)?;
            }
        }
    }
    Ok(())
}

/// What the realm has to say, in order: joins, leaves, timers.
pub fn events(py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<()> {
    loop {
        let mut state = core.enter()?;
        let Some(event) = state.server.realm.poll_event() else { return Ok(()) };
        drop(state);
        event_happened(py, core, event)?;
    }
}

fn event_happened(py: Python<'_>, core: &Scope<'_, '_>, event: Event) -> PyResult<()> {
    let table = core.enter()?.table.clone();
    match event {
        Event::Authenticate { session: key, user } => match new_session(py, core, key)? {
            Some(session) => authenticate(py, core, &table, key, &session, &user),
            None => Ok(()),
        },
        Event::Joined { session: key } => {
            turn::joined(core.shared(), 0, key)?;
            let Some(session) = core.enter()?.session(py, key) else { return Ok(()) };
            for handler in &table.join {
                lifecycle(py, core, handler, key, &session, None, After::Joined { key })?;
            }
            Ok(())
        }
        Event::Dropped { session: key }
        | Event::Resumed { session: key }
        | Event::Congested { session: key }
        | Event::Relieved { session: key }
        | Event::Left { session: key, .. } => {
            if core.enter()?.put_off(key, &event) {
                return Ok(()); // until on_join has finished
            }
            let Some(session) = core.enter()?.session(py, key) else { return Ok(()) };
            let (handlers, why, after) = match event {
                Event::Dropped { .. } => (&table.drop, None, After::Nothing),
                Event::Resumed { .. } => (&table.resume, None, After::Nothing),
                Event::Congested { .. } => (&table.congested, None, After::Nothing),
                Event::Relieved { .. } => (&table.relieved, None, After::Nothing),
                Event::Left { why, .. } => (&table.leave, Some(why), After::Left),
                _ => unreachable!("matched above"),
            };
            for handler in handlers {
                let why = why.map(|why| left(py, why)).transpose()?;
                lifecycle(py, core, handler, key, &session, why, after)?;
            }
            if matches!(event, Event::Left { .. }) {
                core.enter()?.forget(key);
                turn::left(core.shared(), 0, key)?;
                core.settle()?;
            }
            Ok(())
        }
        Event::Gone { session: key } => {
            core.enter()?.forget(key);
            turn::left(core.shared(), 0, key)?;
            core.settle()
        }
        Event::RoomTicks { circle, tick } => room_ticks(py, core, &table, circle, tick),
        Event::Timer { key } => {
            let fire = core.enter()?.hooks.fire.clone_ref(py);
            let fired = fire.call1(py, (key.to_bits(),));
            core.settle()?;
            fired.map(drop)
        }
    }
}

/// What is due by time in this turn: timers, then ticks.
pub fn due(py: Python<'_>, core: &Scope<'_, '_>) -> PyResult<()> {
    core.enter()?.server.handle_timeouts();
    events(py, core)?;
    loop {
        let Some(dt) = core.enter()?.server.next_tick() else { break };
        tick(py, core, dt)?;
    }
    turn::end_touched(py, core)
}

/// A step of the game: what came in batches, then each tick handler with the fixed `dt` in seconds, then what the world
/// shows of it.
fn tick(py: Python<'_>, core: &Scope<'_, '_>, dt: f64) -> PyResult<()> {
    let table = core.enter()?.table.clone();
    batch::hand_over(py, core, &table)?;
    let dt = PyFloat::new(py, dt).into_any();
    for handler in &table.tick {
        let called = handler.call_alone(py, dt.clone());
        core.settle()?;
        if let Err(error) = called {
            failed(py, core, &handler.place, error)?;
        }
    }
    turn::end_tick(py, core, 0)
}

/// Messages that are answered here, for the bench.
fn echo(core: &Scope<'_, '_>, link: LinkId, messages: Messages<'_>) -> PyResult<()> {
    let mut state = core.enter()?;
    for Message { request, body } in messages {
        if let Some(from) = state.admit(link, request, body.len())
            && let Some(id) = request
        {
            state.server.realm.respond(from.session, link, id, body);
        }
    }
    Ok(())
}

/// Messages of one link to one route that a plain function handles.
///
/// This is the way of most messages: what all of them share is looked up once; whose they are and whether it is their turn,
/// again only if somebody has entered the core since, as a handler does that pushes or kicks.
fn plain(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    handler: &Handler,
    (link, route): (LinkId, RouteId),
    messages: Messages<'_>,
) -> PyResult<()> {
    let mut sender: Option<Sender> = None;
    let (mut given, mut lent) = (Given::default(), Lent::default());
    let mut entered = None;
    for Message { request, body } in messages {
        let mut state = match entered.take() {
            Some(state) => state,
            None => core.enter()?,
        };
        let visits = state.visits();
        let sender = match &mut sender {
            Some(sender)
                if sender.visits == visits && state.admit_next(link, sender.key, request, body.len()) =>
            {
                &*sender
            }
            sender => {
                let Some(from) = state.admit(link, request, body.len()) else { continue };
                let (key, serializer) = (from.session, from.serializer);
                match state.turn_of(from) {
                    Turn::Now(session) => {
                        &*sender.insert(Sender { key, session: session.clone_ref(py), serializer, visits })
                    }
                    Turn::Later => {
                        state.wait(Asker { key, link, request, route, room: 0, serializer }, body);
                        continue;
                    }
                    Turn::Never => continue,
                }
            }
        };
        drop(state);
        let &Sender { key, serializer, ref session, .. } = sender;
        let called = handler.call_plain(py, session, serializer, body, &mut given);
        core.settle()?;
        let asker = || Asker { key, link, request, route, room: 0, serializer };
        match called {
            Ok(result) => match (request, handler.bytes_of(&result)) {
                (None, _) => {}
                (Some(id), Some(bytes)) => {
                    // The next message finds it entered.
                    entered.insert(core.enter()?).server.realm.respond(key, link, id, bytes);
                }
                _ => {
                    let declared = handler.answer.as_deref();
                    answer_in(&mut lent, py, core, asker(), &handler.place, declared, &result)?;
                }
            },
            Err(failure) => failed_at(py, core, asker(), handler, failure)?,
        }
    }
    Ok(())
}

/// Whose turn it is.
struct Sender {
    key: SessionKey,
    session: Py<Session>,
    serializer: Serializer,
    /// [`Entered::visits`](crate::cell::Entered::visits) when that was asked.
    visits: usize,
}

/// A message of any other kind.
fn message(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    table: &Table,
    (link, route, room): (LinkId, RouteId, RoomNumber),
    Message { request, body }: Message<'_>,
) -> PyResult<()> {
    let mut state = core.enter()?;
    let Some(from) = state.admit(link, request, body.len()) else { return Ok(()) };
    let asker = Asker { key: from.session, link, request, route, room, serializer: from.serializer };
    let session = match state.turn_of(from) {
        Turn::Now(session) => session.clone_ref(py),
        Turn::Later => {
            state.wait(asker, body);
            return Ok(());
        }
        Turn::Never => return Ok(()),
    };
    drop(state);
    run(py, core, table, asker, &session, body)
}

fn run(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    table: &Table,
    asker: Asker,
    session: &Py<Session>,
    body: &[u8],
) -> PyResult<()> {
    if asker.room != 0 || table.is_in_rooms(asker.route) {
        return run_in_room(py, core, table, asker, session, body);
    }
    run_in_app(py, core, table, asker, session, body)
}

fn run_in_app(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    table: &Table,
    asker: Asker,
    session: &Py<Session>,
    body: &[u8],
) -> PyResult<()> {
    let Some(handler) = table.route(asker.route) else {
        core.enter()?.respond_error(asker, "GS-404", "this route is handled no longer", &[]);
        return Ok(());
    };
    let entity = match &handler.entity {
        None => None,
        Some(class) => match entity_of(py, core, asker, class)? {
            Some(entity) => Some(entity),
            None => return Ok(()),
        },
    };
    if let Some(index) = handler.batch() {
        return batch::add(py, core, asker, index, body);
    }
    let called = handler.call_message(py, session, entity.as_ref(), asker.serializer, body);
    finish(py, core, asker, handler, called)
}

/// A message's handler was called: what it returned is its answer, or is waited for.
fn finish(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    asker: Asker,
    handler: &Handler,
    called: Result<Bound<'_, PyAny>, Failure>,
) -> PyResult<()> {
    core.settle()?;
    match called {
        Ok(result) if handler.is_async => {
            let after = After::Message { asker, counted: !handler.concurrent };
            task::start(py, core, handler, result, after)
        }
        Ok(result) => answer(py, core, asker, &handler.place, handler.answer.as_deref(), &result),
        Err(failure) => failed_at(py, core, asker, handler, failure),
    }
}

/// A message's handler could not be called, or has raised.
#[cold]
fn failed_at(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    asker: Asker,
    handler: &Handler,
    failure: Failure,
) -> PyResult<()> {
    match failure {
        Failure::Body(error) => refuse_body(py, core, asker, &error),
        Failure::Raised(error) => answer_error(py, core, asker, &handler.place, error),
    }
}

/// The sender's entity of a class that the handler takes; a sender that has none is told so.
fn entity_of(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    asker: Asker,
    class: &Py<PyType>,
) -> PyResult<Option<Py<EntityBase>>> {
    let found = turn::entity_of(py, core, asker.room, asker.key, class)?;
    if found.is_none() {
        let text = format!("this route takes your {}, and you have none", class.bind(py).qualname()?);
        core.enter()?.respond_error(asker, "GS-409", &text, &[]);
    }
    Ok(found)
}

/// A message that a room may handle.
#[inline(never)]
fn run_in_room(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    table: &Table,
    mut asker: Asker,
    session: &Py<Session>,
    body: &[u8],
) -> PyResult<()> {
    let mut state = core.enter()?;
    let (number, class, room, seat) = match state.rooms.place(py, table, asker) {
        Place::Room(number, class, room, seat) => (number, class, room, seat),
        Place::App => {
            drop(state);
            return run_in_app(py, core, table, asker, session, body);
        }
        Place::Outside => {
            state.respond_error(asker, "GS-404", "you are not in this room; join it first", &[]);
            return Ok(());
        }
        Place::Ambiguous => {
            let text =
                "you are in several rooms that handle this; write the room's number behind the route: Say@17";
            state.respond_error(asker, "GS-404", text, &[]);
            return Ok(());
        }
    };
    let Some(handler) = table.rooms.get(class).and_then(|class| class.route(asker.route)) else {
        state.respond_error(asker, "GS-404", "no handler for this route in this room", &[]);
        return Ok(());
    };
    drop(state);
    asker.room = number;
    let entity = match &handler.entity {
        None => None,
        Some(class) => match entity_of(py, core, asker, class)? {
            Some(entity) => Some(entity),
            None => return Ok(()),
        },
    };
    let called = handler.call_in_room(py, (&room, &seat), entity.as_ref(), asker.serializer, body);
    finish(py, core, asker, handler, called)
}

/// A tick of all rooms that tick together; who comes meanwhile begins with the next.
fn room_ticks(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    table: &Table,
    circle: CircleId,
    tick: u64,
) -> PyResult<()> {
    let mut state = core.enter()?;
    let (places, dt) = (state.rooms.ticking(circle), state.realm().circle_dt(circle));
    drop(state);
    let dt = PyFloat::new(py, dt).into_any();
    for place in 0..places {
        let found = core.enter()?.rooms.ticking_at(py, circle, place, tick);
        let Some((number, room, class, has_world)) = found else { continue };
        if let Some(handler) = table.rooms.get(class).and_then(|class| class.tick.as_ref()) {
            let called = handler.call_tick_of(py, &room, dt.clone());
            core.settle()?;
            if let Err(error) = called {
                failed_in(py, core, number, &handler.place, error)?;
            }
        }
        if has_world {
            turn::end_tick(py, core, number)?;
        }
    }
    Ok(())
}

/// Messages of a session that had to wait: run as many as may now.
pub fn resume_waiting(py: Python<'_>, core: &Scope<'_, '_>, key: SessionKey) -> PyResult<()> {
    loop {
        let mut state = core.enter()?;
        let Some(Waiting { asker, body }) = state.next_waiting(key) else { return Ok(()) };
        let table = state.table.clone();
        let Some(session) = state.session(py, key) else { return Ok(()) };
        drop(state);
        run(py, core, &table, asker, &session, &body)?;
    }
}

/// on_join has finished: what had to wait for it happens now.
pub fn join_finished(py: Python<'_>, core: &Scope<'_, '_>, key: SessionKey) -> PyResult<()> {
    let events = core.enter()?.join_finished(key);
    for event in events {
        event_happened(py, core, event)?;
    }
    resume_waiting(py, core, key)
}

/// Answers a request with what its handler returned; a notify's result is dropped.
#[inline]
pub fn answer(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    asker: Asker,
    place: &str,
    declared: Option<&Answer>,
    result: &Bound<'_, PyAny>,
) -> PyResult<()> {
    answer_in(&mut Lent::default(), py, core, asker, place, declared, result)
}

/// The same, written in a buffer that is there.
#[inline]
fn answer_in(
    lent: &mut Lent,
    py: Python<'_>,
    core: &Scope<'_, '_>,
    asker: Asker,
    place: &str,
    declared: Option<&Answer>,
    result: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let Some(id) = asker.request else { return Ok(()) };
    if declared.is_none()
        && let Ok(bytes) = result.cast::<PyBytes>()
    {
        core.enter()?.respond(asker, id, bytes.as_bytes());
        return Ok(());
    }
    let buffer = lent.empty();
    let body;
    let written = match declared {
        Some(declared) => declared.write(result, asker.serializer, buffer).map(|()| &buffer[..]),
        None => match Body::new(result) {
            Ok(made) => {
                body = made;
                body.bytes(asker.serializer, buffer)
            }
            Err(error) => Err(error),
        },
    };
    match written {
        Ok(body) => {
            core.enter()?.respond(asker, id, body);
            Ok(())
        }
        Err(error) => answer_error(py, core, asker, place, error),
    }
}

/// Answers a request with an exception: `Refuse` as raised, all else as GS-500, logged once per traceback.
pub fn answer_error(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    asker: Asker,
    place: &str,
    error: PyErr,
) -> PyResult<()> {
    let refused = REFUSE.matches(py, &error).then(|| refusal(py, &error));
    if let Some(Ok(Refusal { code, text, metadata })) = refused {
        core.enter()?.respond_error(asker, &code, &text, &metadata);
        return Ok(());
    }
    failed_in(py, core, asker.room, place, error)?;
    core.enter()?.respond_error(asker, "GS-500", "the handler failed; the server's log says more", &[]);
    Ok(())
}

/// Answers a message whose body is not what its route takes.
pub fn refuse_body(py: Python<'_>, core: &Scope<'_, '_>, asker: Asker, error: &PyErr) -> PyResult<()> {
    let text = format!("the body is not what this route takes: {}", error.value(py));
    core.enter()?.refuse_body(asker, &text);
    Ok(())
}

/// What a `Refuse` says.
struct Refusal {
    code: String,
    text: String,
    metadata: Vec<(String, String)>,
}

/// What a `Refuse` says; an error if a subclass of the game's has lost them.
fn refusal(py: Python<'_>, error: &PyErr) -> PyResult<Refusal> {
    let value = error.value(py);
    let metadata =
        value.getattr(intern!(py, "metadata"))?.cast_into::<pyo3::types::PyDict>().map_err(PyErr::from)?;
    let mut pairs = Vec::with_capacity(metadata.len());
    for (key, value) in metadata.iter() {
        pairs.push((key.str()?.to_string(), value.str()?.to_string()));
    }
    let code = value.getattr(intern!(py, "code"))?.extract()?;
    let text = value.getattr(intern!(py, "text"))?.extract()?;
    Ok(Refusal { code, text, metadata: pairs })
}

/// Gives an exception of the game to its error log.
pub fn failed(py: Python<'_>, core: &Scope<'_, '_>, place: &str, error: PyErr) -> PyResult<()> {
    let hook = core.enter()?.hooks.failed.clone_ref(py);
    if let Err(error) = hook.call1(py, (place, error.into_value(py))) {
        error.write_unraisable(py, None); // a logging handler of the game's that fails is no reason to end
    }
    core.settle()
}

/// The same for a room's, which counts it.
fn failed_in(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    number: RoomNumber,
    place: &str,
    error: PyErr,
) -> PyResult<()> {
    let Some((room, _)) = (if number == 0 { None } else { core.enter()?.rooms.room(py, number) }) else {
        return failed(py, core, place, error);
    };
    if let Err(error) = room.bind(py).call_method1("_failed", (place, error.into_value(py))) {
        error.write_unraisable(py, None); // as in `failed`
    }
    core.settle()
}

fn lifecycle(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    handler: &Handler,
    key: SessionKey,
    session: &Py<Session>,
    item: Option<Bound<'_, PyAny>>,
    after: After,
) -> PyResult<()> {
    let called = handler.call_with(py, session, item.as_ref());
    core.settle()?;
    match called {
        Ok(result) if handler.is_async => {
            match after {
                After::Joined { .. } => core.enter()?.join_started(key),
                After::Left => core.enter()?.leaving += 1,
                _ => {}
            }
            task::start(py, core, handler, result, after)
        }
        Ok(_) => Ok(()),
        Err(error) => failed(py, core, &handler.place, error),
    }
}

fn authenticate(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    table: &Table,
    key: SessionKey,
    session: &Py<Session>,
    user: &[u8],
) -> PyResult<()> {
    let Some(handler) = &table.authenticate else {
        core.enter()?.accept(key, None);
        return events(py, core);
    };
    let called = handler.call_message(py, session, None, Serializer::Json, user);
    core.settle()?;
    let result = match called {
        Ok(result) if handler.is_async => {
            return task::start(py, core, handler, result, After::Authenticated { key });
        }
        Ok(result) => Ok(result),
        Err(Failure::Body(error)) => {
            core.enter()?.refuse(key, "GS-400", &format!("handshake.user: {}", error.value(py)));
            return events(py, core);
        }
        Err(Failure::Raised(error)) => Err(error),
    };
    authenticated(py, core, key, &handler.place, result)
}

/// `authenticate` has answered.
pub fn authenticated(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    key: SessionKey,
    place: &str,
    result: PyResult<Bound<'_, PyAny>>,
) -> PyResult<()> {
    let uid = result.and_then(|value| {
        if value.is_none() {
            return Ok(None);
        }
        value.extract::<String>().map(Some).map_err(|_| {
            let class = value.get_type();
            pyo3::exceptions::PyTypeError::new_err(format!(
                "authenticate returned {class}: return the uid as str, or None for a guest"
            ))
        })
    });
    match uid {
        Ok(uid) => core.enter()?.accept(key, uid.as_deref()),
        Err(error) => match REFUSE.matches(py, &error).then(|| refusal(py, &error)) {
            Some(Ok(Refusal { code, text, .. })) => core.enter()?.refuse(key, &code, &text),
            _ => {
                failed(py, core, place, error)?;
                core.enter()?.refuse(key, "GS-500", "authentication failed; the server's log says more");
            }
        },
    }
    events(py, core)
}

/// Makes the game's object of a session; none if the game can't: then the client is refused.
fn new_session(py: Python<'_>, core: &Scope<'_, '_>, key: SessionKey) -> PyResult<Option<Py<Session>>> {
    let class = core.enter()?.hooks.session_class.clone_ref(py);
    let made = class.bind(py).call0().and_then(|object| Ok(object.cast_into::<Session>()?.unbind()));
    core.settle()?;
    let session = match made {
        Ok(session) => session,
        Err(error) => {
            failed(py, core, "App(session=...)", error)?;
            core.enter()?.refuse(key, "GS-500", "no session could be made; the server's log says more");
            return Ok(None);
        }
    };
    let mut state = core.enter()?;
    let id = state.server.realm.session_id(key).unwrap_or(0);
    session.get().place(core.shared().clone(), key, id);
    state.seat(key, session.clone_ref(py));
    Ok(Some(session))
}

fn left(py: Python<'_>, why: Left) -> PyResult<Bound<'_, PyAny>> {
    use pyo3::sync::PyOnceLock;
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS
        .get_or_try_init(py, || Ok::<_, PyErr>(py.import("gameserver._types")?.getattr("Left")?.unbind()))?;
    class.bind(py).call1((why.name(),))
}

fn http<'py>(
    py: Python<'py>,
    core: &Scope<'_, '_>,
    method: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<()> {
    let Some(host) = core.enter()?.hooks.http.as_ref().map(|host| host.clone_ref(py)) else { return Ok(()) };
    let called = host.bind(py).call_method1(method, arguments);
    core.settle()?;
    if let Err(error) = called {
        failed(py, core, "http", error)?;
    }
    Ok(())
}
