//! Names of routes as small numbers: what a client spells once per message is looked up once per message.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::RouteId;
use crate::rate::Limit;

/// All routes that somebody handles. Numbers are given in order and never change their meaning, so a table that
/// replaces another (a clone with more names) agrees with every number that is still on its way.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    // The keys are the game's own: a client can look names up, but adds none.
    ids: FxHashMap<Arc<[u8]>, RouteId>,
    names: Vec<Arc<str>>,
    /// Which of `limits` a route has; the place behind the last: none.
    limited: Vec<u16>,
    limits: Vec<Option<Limit>>,
    /// Routes whose notifies wait for a tick.
    waiting: Vec<RouteId>,
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

    /// How often one client may send to this route; `None`: as often as it likes.
    ///
    /// # Panics
    ///
    /// When more than 65,534 routes were ever limited.
    pub fn set_limit(&mut self, id: RouteId, limit: Option<Limit>) {
        let place = id.0 as usize;
        if self.limited.len() <= place {
            self.limited.resize(place + 1, NOT_LIMITED);
        }
        match (self.limited[place], limit) {
            (NOT_LIMITED, None) => {}
            (NOT_LIMITED, Some(_)) => {
                self.limited[place] =
                    u16::try_from(self.limits.len()).ok().filter(|&n| n < NOT_LIMITED).expect("few limits");
                self.limits.push(limit);
            }
            (number, _) => self.limits[usize::from(number)] = limit,
        }
    }

    /// What a route is limited to, and the number of that limit: links have their buckets by it.
    #[inline]
    pub fn limit(&self, id: RouteId) -> Option<(usize, Limit)> {
        let number = usize::from(*self.limited.get(id.0 as usize)?);
        Some((number, (*self.limits.get(number)?)?))
    }

    /// The routes whose notifies wait for a tick before they are handled; of all others they do not.
    pub fn set_waiting(&mut self, routes: Vec<RouteId>) {
        self.waiting = routes;
    }

    /// Whether notifies to this route wait for a tick.
    #[inline]
    pub fn waits(&self, id: RouteId) -> bool {
        self.waiting.contains(&id)
    }

    /// The number of `name`, if it has one.
    #[inline]
    pub fn lookup(&self, name: impl AsRef<[u8]>) -> Option<RouteId> {
        self.ids.get(name.as_ref()).copied()
    }

    /// What a client spells: a route, and the number of the room whose it is. `Say` is in no room in particular (0); `Say@17`
    /// is in room 17, unless a route is called that.
    #[inline]
    pub fn resolve(&self, name: &[u8]) -> Option<(RouteId, u32)> {
        match self.lookup(name) {
            Some(route) => Some((route, 0)),
            None => self.resolve_in_room(name),
        }
    }

    fn resolve_in_room(&self, name: &[u8]) -> Option<(RouteId, u32)> {
        let at = name.iter().rposition(|&byte| byte == b'@')?;
        let (name, number) = (&name[..at], &name[at + 1..]);
        if !number.first().is_some_and(|first| (b'1'..=b'9').contains(first)) {
            return None; // one spelling for each room
        }
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((self.lookup(name)?, number))
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

/// No limit has this number.
const NOT_LIMITED: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_an_at_sign_is_a_rooms() {
        let mut table = RouteTable::new();
        let (say, odd) = (table.intern("Say"), table.intern("odd@3"));
        assert_eq!(table.resolve(b"Say"), Some((say, 0)));
        assert_eq!(table.resolve(b"Say@17"), Some((say, 17)));
        assert_eq!(table.resolve(b"Say@4294967295"), Some((say, u32::MAX)));
        assert_eq!(table.resolve(b"odd@3"), Some((odd, 0)));
        assert_eq!(table.resolve(b"odd@3@4"), Some((odd, 4)));
        for wrong in
            ["Say@", "Say@0", "Say@017", "Say@+7", "Say@4294967296", "Say@1@2", "Shout@1", "@1", "Say@1 "]
        {
            assert_eq!(table.resolve(wrong.as_bytes()), None, "{wrong}");
        }
    }

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
