//! Batches: what comes of one message between two ticks, as columns of plain numbers.

use engine::event::{Message, RouteId, Up, UpLog};
use engine::realm::Admitted;
use engine::session::SessionKey;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyDict, PyList, PyType};
use schema::discard::Discard;
use schema::error::DecodeError;
use schema::plan::{Scalar, ScalarType, Sink, Stopped};
use schema::shape::{Label, MessageId};
use wire::handshake::Serializer;

use crate::dispatch::{self, Asker};
use crate::handler::Table;
use crate::message::{self, Codec};
use crate::scope::Scope;
use crate::scratch::with_buffer;
use crate::session::Session;
use crate::state::Turn;
use crate::typed::Typed;

/// The messages of a batch handler that wait for the tick.
pub struct Batch {
    typed: Typed,
    keeps_last: bool,
    columns: Vec<Column>,
    /// The bits of each number of each message: a row has one for each column. They become columns when they are taken.
    rows: Vec<u64>,
    /// The row of a body without any field.
    blank: Vec<u64>,
    /// By slot of the shape: its column, `usize::MAX` for none.
    places: Vec<usize>,
    /// By slot: the index of its oneof.
    oneofs: Vec<Option<u32>>,
    discard: Discard,
    /// Whose the rows are, in order.
    senders: Vec<Run>,
    /// By place of the session: its newest row, with its generation.
    newest: Vec<(u32, u32)>,
    /// Rows that a newer one has replaced.
    stale: usize,
}

/// Rows of one sender, one behind the other; one alone, if only the newest is kept.
struct Run {
    from: SessionKey,
    rows: u32,
}

/// One field that is a number.
struct Column {
    name: String,
    slot: usize,
    dtype: &'static str,
    width: usize,
}

/// All batches, by the index that the handler has; none while it is in use.
pub type Batches = Vec<Option<Box<Batch>>>;

/// A session's object and its public id.
type Sender = (Py<Session>, u64);

/// What happened to a message.
enum Added {
    /// It is in the batch.
    Kept,
    /// There is no room before the next tick.
    Full,
}

/// Puts the messages of a batch's route with which `events` begins into the batch. Says how many of the events that were.
pub fn add_run(
    py: Python<'_>,
    core: &Scope<'_, '_>,
    (route, index): (RouteId, usize),
    events: &[Up],
    ups: &UpLog,
) -> PyResult<usize> {
    let is_one = |up: &&Up| matches!(up, Up::Messages { route: of, room: 0, .. } if *of == route);
    let run = events.iter().take_while(is_one).count();
    let mut state = core.enter()?;
    let Some(Some(batch)) = state.batches.get(index) else { return Ok(run) };
    let class = batch.typed.class(py).clone();
    let codec = message::codec(&class)?;
    let Some(mut batch) = state.batches[index].take() else { return Ok(run) };
    for up in &events[..run] {
        let Up::Messages { link, packets, .. } = *up else { continue };
        // Whose they are is asked once, as long as nothing but this loop runs.
        let (mut last, mut count, mut body_bytes) = (None, 0, 0);
        for Message { request, body } in ups.messages(packets) {
            let from: Admitted = match last {
                Some(from) if request.is_none() => {
                    count += 1;
                    body_bytes += body.len() as u64;
                    from
                }
                _ => match state.admit(link, request, body.len()) {
                    Some(from) => from,
                    None => continue,
                },
            };
            let (key, serializer) = (from.session, from.serializer);
            let asker = || Asker { key, link, request, route, room: 0, serializer };
            if last.is_none() {
                match state.turn_of(from) {
                    Turn::Now(_) => last = Some(from),
                    Turn::Later => {
                        state.wait(asker(), body);
                        continue;
                    }
                    Turn::Never => continue,
                }
            }
            let is_plain = request.is_none() && serializer == Serializer::Protobuf;
            if !(is_plain && batch.add_plain(codec, key, body)) {
                // Python has a part in all else: in JSON, and in what is wrong.
                state.batches[index] = Some(batch);
                drop(state);
                add(py, core, asker(), index, body)?;
                state = core.enter()?;
                let Some(same) = state.batches.get_mut(index).and_then(Option::take) else { return Ok(run) };
                batch = same;
                state.server.realm.admit_more(link, key, count, body_bytes);
                (last, count, body_bytes) = (None, 0, 0);
            }
        }
        if let Some(from) = last {
            state.server.realm.admit_more(link, from.session, count, body_bytes);
        }
    }
    state.batches[index] = Some(batch);
    Ok(run)
}

/// Puts a notify into its batch.
pub fn add(py: Python<'_>, core: &Scope<'_, '_>, asker: Asker, index: usize, body: &[u8]) -> PyResult<()> {
    let mut state = core.enter()?;
    if asker.request.is_some() {
        let text = "this route takes notifies: what they do is known only after the next tick";
        state.respond_error(asker, "GS-405", text, &[]);
        return Ok(());
    }
    let Some(mut batch) = state.batches.get_mut(index).and_then(Option::take) else { return Ok(()) };
    drop(state);
    let added = batch.add(py, asker.key, asker.serializer, body);
    let mut state = core.enter()?;
    state.batches[index] = Some(batch);
    match added {
        Ok(Added::Kept) => {}
        Ok(Added::Full) => state.batch_dropped += 1,
        Err(error) => {
            drop(state);
            dispatch::refuse_body(py, core, asker, &error)?;
        }
    }
    Ok(())
}

/// Hands each batch handler what has come.
pub fn hand_over(py: Python<'_>, core: &Scope<'_, '_>, table: &Table) -> PyResult<()> {
    for (index, &route) in table.batches.iter().enumerate() {
        let Some(handler) = table.route(route) else { continue };
        let mut state = core.enter()?;
        let Some(place) = state.batches.get_mut(index) else { continue };
        let Some(mut batch) = place.take_if(|batch| !batch.is_empty()) else { continue };
        drop(state);
        let taken = batch.take(py, |key| {
            let state = core.enter().ok()?;
            Some((state.session(py, key)?, state.realm().session_id(key)?))
        });
        if let Some(place) = core.enter()?.batches.get_mut(index) {
            *place = Some(batch);
        }
        let called = match taken {
            Ok(None) => continue, // all who sent something have left
            Ok(Some(batch)) => handler.call_alone(py, batch),
            Err(error) => Err(error),
        };
        core.settle()?;
        if let Err(error) = called {
            dispatch::failed(py, core, &handler.place, error)?;
        }
    }
    Ok(())
}

impl Batch {
    /// An empty one of messages of `class`.
    pub fn new(class: &Bound<'_, PyType>, keeps_last: bool) -> PyResult<Self> {
        let codec = message::codec(class)?;
        let shape = codec.schema().message(MessageId(0));
        let columns: Vec<Column> = shape
            .fields
            .iter()
            .enumerate()
            .filter_map(|(slot, field)| {
                let (Label::Single | Label::Optional) = field.label else { return None };
                let (dtype, width) = dtype(field.kind.scalar_type()?)?;
                Some(Column { name: field.name.clone(), slot, dtype, width })
            })
            .collect();
        if columns.is_empty() {
            let name = class.qualname()?;
            return Err(PyTypeError::new_err(format!(
                "{name} has no field that is a number: nothing to batch"
            )));
        }
        class.py().import("numpy")?; // it takes its time: not in a tick
        let mut places = vec![usize::MAX; shape.fields.len()];
        for (place, column) in columns.iter().enumerate() {
            places[column.slot] = place;
        }
        Ok(Self {
            typed: Typed::new(class)?,
            keeps_last,
            blank: blank(class, &columns)?,
            columns,
            rows: Vec::new(),
            places,
            oneofs: shape.fields.iter().map(|field| field.oneof).collect(),
            discard: Discard::new(),
            senders: Vec::new(),
            newest: Vec::new(),
            stale: 0,
        })
    }

    /// Reads a message into the columns. False: it is wrong, or there is no room; the batch is as before.
    #[inline]
    fn add_plain(&mut self, codec: &Codec, from: SessionKey, body: &[u8]) -> bool {
        let is_kept = !self.is_full() && self.read(codec, body).is_ok();
        if is_kept {
            self.keep(from);
        }
        is_kept
    }

    /// Reads a message into the columns.
    ///
    /// # Errors
    /// As [`Typed::read`]; the batch is as before.
    fn add(
        &mut self,
        py: Python<'_>,
        from: SessionKey,
        serializer: Serializer,
        body: &[u8],
    ) -> PyResult<Added> {
        if self.is_full() {
            return Ok(Added::Full);
        }
        let class = self.typed.class(py).clone();
        let codec = message::codec(&class)?;
        let read = match serializer {
            Serializer::Protobuf => self.read(codec, body),
            Serializer::Json => with_buffer(|bytes| {
                message::encode_into(&self.typed.read(py, serializer, body)?, bytes)?;
                Ok::<_, PyErr>(self.read(codec, bytes))
            })?,
        };
        read.map_err(|error| message::decode_error(py, error))?;
        self.keep(from);
        Ok(Added::Kept)
    }

    /// Says whose the row is that was read last.
    #[inline]
    fn keep(&mut self, from: SessionKey) {
        match self.senders.last_mut() {
            Some(last) if last.from == from && !self.keeps_last => last.rows += 1,
            _ => self.senders.push(Run { from, rows: 1 }),
        }
        if self.keeps_last {
            self.replace(from);
        }
    }

    /// Whether there is no room before the next tick.
    #[inline]
    fn is_full(&self) -> bool {
        self.rows.len() >= ROWS_MAX * self.columns.len()
    }

    /// Whether nothing came.
    fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Empties it: the rows of sessions that are still there, as `gameserver.Batch`; `None` if there are none.
    fn take<'py>(
        &mut self,
        py: Python<'py>,
        session_of: impl Fn(SessionKey) -> Option<Sender>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let made = self.make(py, session_of);
        self.clear();
        made
    }

    fn make<'py>(
        &mut self,
        py: Python<'py>,
        session_of: impl Fn(SessionKey) -> Option<Sender>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (mut sessions, mut ids) = (Vec::new(), Vec::new());
        self.retain(|run| {
            let found = if run.from == STALE { None } else { session_of(run.from) };
            let stays = found.is_some();
            if let Some((session, id)) = found {
                sessions.push(session);
                ids.push(id);
            }
            stays
        });
        if sessions.is_empty() {
            return Ok(None);
        }
        let columns = PyDict::new(py);
        for (place, column) in self.columns.iter().enumerate() {
            columns.set_item(&column.name, self.array(py, place, column)?)?;
        }
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = CLASS.import(py, "gameserver._batch", "Batch")?;
        let counts = self.senders.iter().map(|run| run.rows.into());
        let counts = array(py, 4, counts.len(), counts, "<i4")?;
        let ids = array(py, 8, ids.len(), ids.iter().copied(), "<u8")?;
        class.call1((columns, ids, PyList::new(py, sessions)?, counts)).map(Some)
    }

    /// One column of all rows, as NumPy has it.
    fn array<'py>(&self, py: Python<'py>, place: usize, column: &Column) -> PyResult<Bound<'py, PyAny>> {
        let numbers = self.rows.chunks_exact(self.columns.len()).map(|row| row[place]);
        array(py, column.width, numbers.len(), numbers, column.dtype)
    }

    /// Reads a message into a new row, to be kept; of one that is wrong none is left.
    #[inline]
    fn read(&mut self, codec: &Codec, body: &[u8]) -> Result<(), DecodeError> {
        let start = self.rows.len();
        self.rows.extend_from_slice(&self.blank);
        self.discard.clear();
        let Self { blank, places, oneofs, discard, .. } = self;
        let mut sink = Row { row: &mut self.rows[start..], blank, places, oneofs, discard };
        let read = codec.read_into(body, &mut sink);
        if read.is_err() {
            self.rows.truncate(start);
        }
        read
    }

    /// Marks the session's row before this one, which is the last.
    fn replace(&mut self, from: SessionKey) {
        let place = from.slot as usize;
        if self.newest.len() <= place {
            self.newest.resize(place + 1, (0, NONE));
        }
        let (generation, row) = self.newest[place];
        if row != NONE && generation == from.generation {
            self.senders[row as usize].from = STALE;
            self.stale += 1;
        }
        self.newest[place] = (from.generation, self.senders.len() as u32 - 1);
        if self.stale > STALE_MAX && self.stale > self.senders.len() / 2 {
            self.drop_stale();
        }
    }

    /// Makes room.
    #[cold]
    fn drop_stale(&mut self) {
        self.retain(|run| run.from != STALE);
        self.stale = 0;
        for (row, Run { from, .. }) in self.senders.iter().enumerate() {
            self.newest[from.slot as usize] = (from.generation, row as u32);
        }
    }

    /// Drops all other rows.
    fn retain(&mut self, mut stays: impl FnMut(&Run) -> bool) {
        let (width, rows) = (self.columns.len(), &mut self.rows);
        let (mut start, mut end) = (0, 0);
        self.senders.retain(|run| {
            let cells = run.rows as usize * width;
            let stays = stays(run);
            if stays {
                if start != end {
                    rows.copy_within(start..start + cells, end);
                }
                end += cells;
            }
            start += cells;
            stays
        });
        rows.truncate(end);
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.senders.clear();
        self.newest.clear();
        self.stale = 0;
    }
}

/// Takes a message's numbers as bits.
struct Row<'a> {
    row: &'a mut [u64],
    blank: &'a [u64],
    places: &'a [usize],
    oneofs: &'a [Option<u32>],
    discard: &'a mut Discard,
}

impl Sink for Row<'_> {
    type Child<'a>
        = Discard
    where
        Self: 'a;

    #[inline]
    fn set(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        let bits = match value {
            Scalar::F64(value) => value.to_bits(),
            Scalar::F32(value) => value.to_bits().into(),
            Scalar::I64(value) => value as u64,
            Scalar::U64(value) => value,
            Scalar::I32(value) | Scalar::Enum(value) => (value as u32).into(),
            Scalar::U32(value) => value.into(),
            Scalar::Bool(value) => value.into(),
            Scalar::Str(_) | Scalar::Bytes(_) => return Ok(()),
        };
        if let Some(cell) = self.row.get_mut(self.places[usize::from(slot)]) {
            *cell = bits;
        }
        Ok(())
    }

    fn message(&mut self, slot: u16) -> Result<Discard, Stopped> {
        self.discard.message(slot)
    }

    fn item(&mut self, slot: u16, value: Scalar<'_>) -> Result<(), Stopped> {
        self.discard.item(slot, value)
    }

    fn message_item(&mut self, slot: u16) -> Result<Discard, Stopped> {
        self.discard.message_item(slot)
    }

    fn entry(&mut self, slot: u16, key: Scalar<'_>, value: Scalar<'_>) -> Result<(), Stopped> {
        self.discard.entry(slot, key, value)
    }

    fn message_entry(&mut self, slot: u16, key: Scalar<'_>) -> Result<Discard, Stopped> {
        self.discard.message_entry(slot, key)
    }

    fn choose(&mut self, oneof: u16, slot: u16) -> Result<(), Stopped> {
        for (other, of) in self.oneofs.iter().enumerate() {
            if *of == Some(oneof.into())
                && other != usize::from(slot)
                && let Some(cell) = self.row.get_mut(self.places[other])
            {
                *cell = self.blank[self.places[other]];
            }
        }
        Ok(())
    }

    fn count(&self, slot: u16) -> usize {
        self.discard.count(slot)
    }
}

/// The bits of a body without any field: the defaults of the class.
fn blank(class: &Bound<'_, PyType>, columns: &[Column]) -> PyResult<Vec<u64>> {
    let mut blank = vec![0; columns.len()];
    let Ok(default) = message::decode_body(class, b"") else { return Ok(blank) }; // a field has to be there
    for (cell, column) in blank.iter_mut().zip(columns) {
        let value = default.getattr(column.name.as_str())?;
        let value = value.getattr_opt(intern!(value.py(), "value"))?.unwrap_or(value); // an enum's
        if value.is_none() {
            continue;
        }
        *cell = match column.dtype {
            "<f8" => value.extract::<f64>()?.to_bits(),
            "<f4" => value.extract::<f32>()?.to_bits().into(),
            "<u8" | "<u4" | "?" => value.extract::<u64>()?,
            _ => value.extract::<i64>()? as u64,
        };
    }
    Ok(blank)
}

/// NumPy's name of a number's type, and its bytes; `None`: it is no number.
fn dtype(ty: ScalarType) -> Option<(&'static str, usize)> {
    Some(match ty {
        ScalarType::F64 => ("<f8", 8),
        ScalarType::F32 => ("<f4", 4),
        ScalarType::I64 => ("<i8", 8),
        ScalarType::U64 => ("<u8", 8),
        ScalarType::I32 | ScalarType::Enum(_) => ("<i4", 4),
        ScalarType::U32 => ("<u4", 4),
        ScalarType::Bool => ("?", 1),
        ScalarType::Str | ScalarType::Bytes => return None,
    })
}

/// A NumPy array of its own memory: of so many numbers, which have `width` bytes each.
fn array<'py>(
    py: Python<'py>,
    width: usize,
    count: usize,
    numbers: impl Iterator<Item = u64>,
    dtype: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyByteArray::new_with(py, width * count, |bytes| {
        match width {
            4 => (bytes.as_chunks_mut().0.iter_mut().zip(numbers))
                .for_each(|(bytes, bits)| *bytes = (bits as u32).to_le_bytes()),
            8 => (bytes.as_chunks_mut().0.iter_mut().zip(numbers))
                .for_each(|(bytes, bits)| *bytes = bits.to_le_bytes()),
            _ => bytes.iter_mut().zip(numbers).for_each(|(byte, bits)| *byte = bits as u8),
        }
        Ok(())
    })?;
    static FROM_BUFFER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_buffer = FROM_BUFFER.import(py, "numpy", "frombuffer")?;
    from_buffer.call1((bytes, dtype))
}

/// Messages of one batch between two ticks; about a second of what one core can take.
const ROWS_MAX: usize = 1 << 20;
/// Replaced rows that are kept at least: fewer are not worth a pass.
const STALE_MAX: usize = 4096;
/// In place of the sender of a row that was replaced.
const STALE: SessionKey = SessionKey { slot: u32::MAX, generation: 0 };
/// No row.
const NONE: u32 = u32::MAX;
