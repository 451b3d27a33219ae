//! Names of routes as small numbers: what a client spells once per message is looked up once per message.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::RouteId;

/// All routes that somebody handles. Numbers are given in order and never change their meaning, so a table that
/// replaces another (a clone with more names) agrees with every number that is still on its way.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    // The keys are the game's own: a client can look names up, but adds none.
    ids: FxHashMap<Arc<[u8]>, RouteId>,
    names: Vec<Arc<str>>,
}

impl RouteTable {
    /// A table without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of `name`, a new one if it has none.
    pub fn intern(&mut self, name: &str) -> RouteId {
        if let Some(id) = self.lookup(name) {
            return id;
        }
        let id = RouteId(self.names.len() as u32);
        self.names.push(name.into());
        self.ids.insert(name.as_bytes().into(), id);
        id
    }

    /// The number of `name`, if it has one.
    #[inline]
    pub fn lookup(&self, name: impl AsRef<[u8]>) -> Option<RouteId> {
        self.ids.get(name.as_ref()).copied()
    }

    /// The name of a number that this table gave.
    pub fn name(&self, id: RouteId) -> &str {
        &self.names[id.0 as usize]
    }

    /// Names in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_replaces_another_keeps_its_numbers() {
        let mut old = RouteTable::new();
        let say = old.intern("Say");
        let mut new = old.clone();
        let shout = new.intern("Shout");
        assert_eq!(new.intern("Say"), say);
        assert_eq!((new.lookup("Say"), new.lookup("Shout")), (Some(say), Some(shout)));
        assert_eq!((new.name(say), new.name(shout), old.lookup("Shout")), ("Say", "Shout", None));
        assert_eq!(new.names().collect::<Vec<_>>(), ["Say", "Shout"]);
    }
}
