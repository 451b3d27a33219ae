//! One world and what ties it to Python: its classes, its entities' owners, the server that it is shown by.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use engine::realm::RoomNumber;
use engine::session::SessionKey;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use world::{Handle, Kind, TableShape, World};

use crate::app;
use crate::cell::{Entered, LogicCell};
use crate::error::{CONFIG_ERROR, SESSION_CLOSED};
use crate::session::Session;
use crate::world::declare::{self, where_of};
use crate::world::entity::EntityBase;
use crate::world::value::Column;
use crate::world::viewers::Viewers;

/// A world, shared by its object and its entities.
pub struct Shared {
    cell: LogicCell<State>,
}

/// Everything of one world that lives on the logic thread.
pub struct State {
    /// Columns, handles, grid, views.
    pub world: World,
    /// The classes, by the index of their table.
    pub tables: Vec<Table>,
    indices: HashMap<usize, u32>,
    /// Entities that stay when their owner leaves.
    kept: BTreeSet<(u32, Handle)>,
    /// Who owns what, by the place of the session.
    owners: Vec<Option<Owned>>,
    /// Who looks.
    pub viewers: Viewers,
    /// Columns, by table and number, of which it was logged that something bad was found in them.
    pub faulty: BTreeSet<(usize, usize)>,
    server: Weak<app::Shared>,
    /// Of a world without ticks: a room's number, and whether that was told that the world may be another one.
    untold: Option<RoomNumber>,
}

/// An entity class.
pub struct Table {
    /// The class; held, so that no other one gets its address.
    pub class: Py<PyType>,
    /// Its columns.
    pub columns: Arc<[Column]>,
    /// Those that a spawn has to give.
    pub required: Arc<[usize]>,
}

/// Whose an entity is.
pub struct Owner {
    /// The session's key.
    pub key: SessionKey,
    /// The session.
    pub session: Py<Session>,
}

/// What belongs to a session.
pub struct Owned {
    generation: u32,
    session: Py<Session>,
    /// Oldest first.
    entities: Vec<(u32, Handle, Py<EntityBase>)>,
}

impl Shared {
    /// An empty world, of whoever enters it.
    pub fn new(world: World, radius: f64) -> Self {
        let state = State {
            world,
            tables: Vec::new(),
            indices: HashMap::new(),
            kept: BTreeSet::new(),
            owners: Vec::new(),
            viewers: Viewers::new(radius),
            faulty: BTreeSet::new(),
            server: Weak::new(),
            untold: None,
        };
        let cell = LogicCell::new(state);
        cell.release();
        Self { cell }
    }

    /// The state; never held while Python runs.
    #[inline]
    pub fn enter(&self) -> PyResult<Entered<'_, State>> {
        self.cell.enter()
    }

    /// One more without entities, of the same classes.
    pub fn like(&self, py: Python<'_>) -> PyResult<Self> {
        let state = self.enter()?;
        let mut world = World::new(state.world.cell());
        if let Err(error) = world.add_tables(state.world.shape().tables().to_vec()) {
            return Err(CONFIG_ERROR.err(py, error.to_string())); // it was checked with the first
        }
        let made = Self::new(world, state.viewers.radius);
        let mut other = made.enter()?;
        other.tables.extend(state.tables.iter().map(|Table { class, columns, required }| Table {
            class: class.clone_ref(py),
            columns: columns.clone(),
            required: required.clone(),
        }));
        other.indices = state.indices.clone();
        drop((state, other));
        Ok(made)
    }

    /// A server on this thread shows the world, in a room or, for 0, to all: from now on it belongs to the thread.
    ///
    /// # Errors
    /// ConfigError: another one does already.
    pub fn attach(
        &self,
        py: Python<'_>,
        server: &Arc<app::Shared>,
        tick_rate: u32,
        room: RoomNumber,
    ) -> PyResult<()> {
        let mut state = self.enter()?;
        if state.server.strong_count() > 0 {
            drop(state);
            return Err(CONFIG_ERROR.err(py, "this world is shown by another server: a world has one app"));
        }
        state.server = Arc::downgrade(server);
        state.set_tick_rate(tick_rate);
        if room != 0 {
            state.viewers.belong_to(room);
            state.untold = (tick_rate == 0).then_some(room);
        }
        drop(state);
        self.cell.claim();
        Ok(())
    }

    /// The server has ended: its sessions are gone, the world is whoever's it is.
    pub fn detach(&self) -> PyResult<()> {
        let mut state = self.enter()?;
        (state.server, state.untold) = (Weak::new(), None);
        let owners = std::mem::take(&mut state.owners);
        state.kept.clear();
        let State { viewers, world, .. } = &mut *state;
        viewers.clear(world);
        drop(state);
        drop(owners); // may run Python
        self.cell.release();
        Ok(())
    }

    /// Something was written, or is about to be: a world without ticks is shown at the end of the turn.
    #[inline]
    pub fn touch(&self) -> PyResult<()> {
        if self.enter()?.is_untold() { self.tell_touched() } else { Ok(()) }
    }

    /// What [`Shared::touch`] does where [`State::is_untold`].
    #[cold]
    pub fn tell_touched(&self) -> PyResult<()> {
        let mut state = self.enter()?;
        let (room, server) = (state.untold.take(), state.server.upgrade());
        drop(state);
        if let (Some(room), Some(server)) = (room, server) {
            server.enter()?.rooms.touched.push(room);
        }
        Ok(())
    }

    /// What was touched is shown.
    pub fn told(&self, room: RoomNumber) -> PyResult<()> {
        self.enter()?.untold = Some(room);
        Ok(())
    }

    /// A session of the server that shows this world.
    pub fn owner_of(&self, session: &Bound<'_, Session>) -> PyResult<Owner> {
        let py = session.py();
        let Some(server) = self.enter()?.server.upgrade() else {
            return Err(SESSION_CLOSED.err(py, "no server shows this world: it has no sessions"));
        };
        let key = session.get().key_in(py, &server)?;
        let is_there = server.enter()?.realm().session(key).is_some();
        if is_there {
            Ok(Owner { key, session: session.clone().unbind() })
        } else {
            Err(session.get().closed(py))
        }
    }

    /// The index of a class's table; a class that was not seen before gets one.
    pub fn table_of(&self, class: &Bound<'_, PyType>) -> PyResult<u32> {
        if let Some(&index) = self.enter()?.indices.get(&(class.as_ptr() as usize)) {
            return Ok(index);
        }
        self.add(class)
    }

    #[cold]
    fn add(&self, class: &Bound<'_, PyType>) -> PyResult<u32> {
        let py = class.py();
        let state = self.enter()?;
        let is_shown = state.server.strong_count() > 0;
        drop(state);
        if is_shown {
            let name = where_of(class);
            let text = format!(
                "{name}: clients are told of all entity classes when they connect, and the app has started without this one; \
                 call world.declare({}) before app.run()",
                class.qualname()?
            );
            return Err(CONFIG_ERROR.err(py, text));
        }
        // Its references name other classes, and these it, perhaps: all that are not known yet come at once.
        let table_of = py.import("gameserver._entity")?.getattr("table_of")?;
        let (mut waiting, mut found) = (vec![class.clone()], Vec::<(Table, TableShape)>::new());
        while let Some(class) = waiting.pop() {
            let address = class.as_ptr() as usize;
            let is_known = self.enter()?.indices.contains_key(&address)
                || found.iter().any(|(table, _)| table.class.as_ptr() as usize == address);
            if is_known {
                continue;
            }
            let shape = table_of.call1((&class,))?;
            let (mut columns, mut required) = (Vec::new(), Vec::new());
            for (index, source) in shape.getattr("columns")?.try_iter()?.enumerate() {
                let source = source?;
                let column = declare::column(&source, index)?;
                if let (Kind::Reference(_), Some(of)) = (&column.kind, &column.of) {
                    waiting.push(of.bind(py).clone());
                }
                columns.push(column);
                if source.getattr("is_required")?.extract()? {
                    required.push(index);
                }
            }
            let table = declare::table(&shape)?;
            self.check_name(&class, &table.name, &found)?;
            let class = class.unbind();
            found.push((Table { class, columns: columns.into(), required: required.into() }, table));
        }
        let (tables, shapes): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let mut state = self.enter()?;
        match state.world.add_tables(shapes) {
            Ok(first) => {
                for (table, index) in tables.into_iter().zip(first as u32..) {
                    state.indices.insert(table.class.as_ptr() as usize, index);
                    state.tables.push(table);
                }
                Ok(first as u32)
            }
            Err(error) => {
                drop(state);
                drop(tables); // may run Python
                Err(CONFIG_ERROR.err(py, error.to_string()))
            }
        }
    }

    /// Clients know a class by its name: no other one may have it.
    fn check_name(
        &self,
        class: &Bound<'_, PyType>,
        name: &str,
        found: &[(Table, TableShape)],
    ) -> PyResult<()> {
        let py = class.py();
        let state = self.enter()?;
        let index = state.world.shape().table(name);
        let known = index.map(|index| state.tables[index].class.clone_ref(py));
        drop(state);
        let new =
            found.iter().find(|(_, shape)| shape.name == name).map(|(table, _)| table.class.clone_ref(py));
        let Some(other) = known.or(new) else { return Ok(()) };
        let (one, other) = (where_of(class), where_of(other.bind(py)));
        let text = format!(
            "{name} is the name of {other} and of {one}: clients know a class by its name, rename one"
        );
        Err(CONFIG_ERROR.err(py, text))
    }
}

impl State {
    /// Whether nobody was told yet that something is written in this world, which has no ticks.
    #[inline]
    pub fn is_untold(&self) -> bool {
        self.untold.is_some()
    }

    /// How many ticks the rates of columns are, is known from now on.
    pub fn set_tick_rate(&mut self, tick_rate: u32) {
        for (index, table) in self.tables.iter().enumerate() {
            for column in &*table.columns {
                self.world.set_every(index, column.index, declare::every(column.rate, tick_rate));
            }
        }
    }

    /// The row of a live entity.
    #[inline]
    pub fn row(&self, table: u32, handle: Handle) -> Option<usize> {
        self.world.row(table as usize, handle)
    }

    /// A row's bytes in a column.
    #[inline]
    pub fn cell(&self, table: u32, column: usize, row: usize) -> &[u8] {
        self.world.value(table as usize, column, row)
    }

    /// The same, to write.
    #[inline]
    pub fn cell_mut(&mut self, table: u32, column: usize, row: usize) -> &mut [u8] {
        self.world.value_mut(table as usize, column, row)
    }

    /// Takes an entity out at the end of the tick: what was held for it, to be dropped when the guard is. `None`: it is gone already.
    pub fn despawn(&mut self, table: u32, handle: Handle) -> Option<impl Sized + use<>> {
        let owner = self.world.owner(table as usize, handle).map(SessionKey::from_bits);
        self.world.despawn(table as usize, handle).then(|| {
            self.kept.remove(&(table, handle));
            owner.and_then(|key| self.disown(key, table, handle))
        })
    }

    /// The session that an entity belongs to.
    pub fn owner(&self, py: Python<'_>, table: u32, handle: Handle) -> Option<Py<Session>> {
        let bits = self.world.owner(table as usize, handle)?;
        Some(self.owned_by(SessionKey::from_bits(bits))?.session.clone_ref(py))
    }

    /// Gives an entity to a session, or to nobody. What was held for its old owner, to be dropped when the guard is.
    pub fn set_owner(
        &mut self,
        entity: &Bound<'_, EntityBase>,
        table: u32,
        handle: Handle,
        owner: Option<Owner>,
    ) -> impl Sized + use<> {
        let old = self.world.owner(table as usize, handle).map(SessionKey::from_bits);
        let bits = owner.as_ref().map_or(0, |owner| owner.key.to_bits());
        self.world.set_owner(table as usize, handle, bits);
        let dropped = old.and_then(|key| self.disown(key, table, handle));
        let unused = owner.map(|Owner { key, session }| {
            let place = key.slot as usize;
            if self.owners.len() <= place {
                self.owners.resize_with(place + 1, || None);
            }
            let owned = (table, handle, entity.clone().unbind());
            match &mut self.owners[place] {
                Some(known) if known.generation == key.generation => {
                    known.entities.push(owned);
                    (Some(session), None)
                }
                other => {
                    let new = Owned { generation: key.generation, session, entities: vec![owned] };
                    (None, other.replace(new)) // nobody is left there by now
                }
            }
        });
        (dropped, unused)
    }

    /// An entity is its owner's no more.
    fn disown(&mut self, key: SessionKey, table: u32, handle: Handle) -> Option<impl Sized + use<>> {
        let place = self.owners.get_mut(key.slot as usize)?;
        let owned = place.as_mut().filter(|owned| owned.generation == key.generation)?;
        let index = owned.entities.iter().position(|(of, one, _)| (*of, *one) == (table, handle))?;
        let entity = owned.entities.remove(index);
        let last = if owned.entities.is_empty() { place.take() } else { None };
        Some((entity, last))
    }

    #[inline]
    fn owned_by(&self, key: SessionKey) -> Option<&Owned> {
        self.owners.get(key.slot as usize)?.as_ref().filter(|owned| owned.generation == key.generation)
    }

    /// The oldest entity of a class, or of one that derives from it, that belongs to a session.
    #[inline]
    pub fn owned(&self, py: Python<'_>, key: SessionKey, class: &Py<PyType>) -> Option<Py<EntityBase>> {
        let class = class.as_ptr().cast();
        // SAFETY: both are live types, and the interpreter is held; it only compares.
        let is_one = |ty| unsafe { ty == class || ffi::PyType_IsSubtype(ty, class) != 0 };
        self.find_owned(key, is_one).map(|(_, entity)| entity.clone_ref(py))
    }

    /// The row of the oldest entity of exactly this class: rows of one that derives from it are another table's.
    #[inline]
    pub fn row_owned(&self, key: SessionKey, class: &Py<PyType>) -> Option<usize> {
        self.find_owned(key, |ty| ty.cast() == class.as_ptr()).map(|(row, _)| row)
    }

    #[inline]
    fn find_owned(
        &self,
        key: SessionKey,
        is_one: impl Fn(*mut ffi::PyTypeObject) -> bool,
    ) -> Option<(usize, &Py<EntityBase>)> {
        let entities = &self.owned_by(key)?.entities;
        // SAFETY: a live object has a type.
        let mut live =
            entities.iter().filter(|(_, _, entity)| is_one(unsafe { ffi::Py_TYPE(entity.as_ptr()) }));
        live.find_map(|(table, handle, entity)| Some((self.row(*table, *handle)?, entity)))
    }

    /// Whether an entity stays when its owner leaves.
    pub fn keeps(&self, table: u32, handle: Handle) -> bool {
        self.kept.contains(&(table, handle))
    }

    /// Says whether it does.
    pub fn set_keep(&mut self, table: u32, handle: Handle, keep: bool) {
        if keep {
            self.kept.insert((table, handle));
        } else {
            self.kept.remove(&(table, handle));
        }
    }

    /// A session's entities, oldest first.
    pub fn all_owned(&self, py: Python<'_>, key: SessionKey) -> Vec<Py<EntityBase>> {
        let owned = self.owned_by(key).into_iter().flat_map(|owned| &owned.entities);
        owned.map(|(_, _, entity)| entity.clone_ref(py)).collect()
    }

    /// A session's entities, which are nobody's from now on.
    pub fn release(&mut self, py: Python<'_>, key: SessionKey) -> (Vec<Py<EntityBase>>, impl Sized + use<>) {
        let place = self.owners.get_mut(key.slot as usize);
        let owned = place.and_then(|place| place.take_if(|owned| owned.generation == key.generation));
        let entities = owned.iter().flat_map(|owned| &owned.entities);
        let released = entities
            .map(|(table, handle, entity)| {
                self.world.set_owner(*table as usize, *handle, 0);
                entity.clone_ref(py)
            })
            .collect();
        (released, owned)
    }

    /// A session has left: what is its own despawns, but for what is kept. What was held for it, to be dropped when the
    /// guard is.
    pub fn leave(&mut self, key: SessionKey) -> impl Sized + use<> {
        self.viewers.left(&mut self.world, key);
        let place = self.owners.get_mut(key.slot as usize);
        let owned = place.and_then(|place| place.take_if(|owned| owned.generation == key.generation));
        for &(table, handle, _) in owned.iter().flat_map(|owned| &owned.entities) {
            if self.keeps(table, handle) {
                self.world.set_owner(table as usize, handle, 0);
            } else {
                self.world.despawn(table as usize, handle);
            }
        }
        owned
    }
}
