//! Named sets of sessions.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::session::SessionKey;

/// A group of a [`crate::realm::Realm`], until it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    slot: u32,
    generation: u32,
}

/// All groups.
#[derive(Default)]
pub(crate) struct Groups {
    slots: Vec<Slot>,
    free: Vec<u32>,
    // A game may name groups by what clients say: no fixed hash. Nothing ever walks over this map.
    by_name: HashMap<Arc<str>, GroupKey>,
}

struct Slot {
    generation: u32,
    group: Option<Group>,
}

struct Group {
    name: Arc<str>,
    /// In the order in which they came; a hole where one has left.
    members: Vec<Option<SessionKey>>,
    places: FxHashMap<SessionKey, u32>,
}

impl Groups {
    pub fn open(&mut self, name: &str) -> GroupKey {
        if let Some(key) = self.find(name) {
            return key;
        }
        let name: Arc<str> = name.into();
        let key = self.insert(name.clone());
        self.by_name.insert(name, key);
        key
    }

    /// A group that has no name: it is a room's.
    pub fn open_unnamed(&mut self) -> GroupKey {
        self.insert("".into())
    }

    fn insert(&mut self, name: Arc<str>) -> GroupKey {
        let group = Group { name, members: Vec::new(), places: FxHashMap::default() };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, group: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.group = Some(group);
        GroupKey { slot, generation: place.generation }
    }

    pub fn find(&self, name: &str) -> Option<GroupKey> {
        self.by_name.get(name).copied()
    }

    /// Forgets a group without members.
    pub fn forget(&mut self, key: GroupKey) -> bool {
        let Some(slot) =
            self.slots.get_mut(key.slot as usize).filter(|slot| slot.generation == key.generation)
        else {
            return false;
        };
        let Some(group) = slot.group.take_if(|group| group.places.is_empty()) else { return false };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        if self.by_name.get(&group.name) == Some(&key) {
            self.by_name.remove(&group.name);
        }
        true
    }

    /// False if it was a member already, or the group is gone.
    pub fn add(&mut self, key: GroupKey, session: SessionKey) -> bool {
        let Some(group) = self.group_mut(key) else { return false };
        if group.places.contains_key(&session) {
            return false;
        }
        group.places.insert(session, group.members.len() as u32);
        group.members.push(Some(session));
        true
    }

    pub fn remove(&mut self, key: GroupKey, session: SessionKey) -> bool {
        let Some(group) = self.group_mut(key) else { return false };
        let Some(place) = group.places.remove(&session) else { return false };
        group.members[place as usize] = None;
        if group.members.len() > 2 * group.places.len() + HOLES_MIN {
            group.close_holes();
        }
        true
    }

    pub fn members(&self, key: GroupKey) -> impl Iterator<Item = SessionKey> {
        self.group(key).into_iter().flat_map(|group| group.members.iter().copied().flatten())
    }

    pub fn len(&self, key: GroupKey) -> usize {
        self.group(key).map_or(0, |group| group.places.len())
    }

    pub fn name(&self, key: GroupKey) -> Option<&str> {
        self.group(key).map(|group| &*group.name)
    }

    fn group(&self, key: GroupKey) -> Option<&Group> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.group.as_ref().filter(|_| slot.generation == key.generation)
    }

    fn group_mut(&mut self, key: GroupKey) -> Option<&mut Group> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        slot.group.as_mut().filter(|_| slot.generation == key.generation)
    }
}

impl Group {
    fn close_holes(&mut self) {
        self.members.retain(Option::is_some);
        for (place, member) in self.members.iter().flatten().enumerate() {
            self.places.insert(*member, place as u32);
        }
    }
}

/// Holes that are not worth closing.
const HOLES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn session(slot: u32) -> SessionKey {
        SessionKey { slot, generation: 1 }
    }

    #[test]
    fn members_stay_in_the_order_in_which_they_came() {
        let mut groups = Groups::default();
        let key = groups.open("red");
        for slot in 0..1000 {
            assert!(groups.add(key, session(slot)));
        }
        assert!(!groups.add(key, session(5)));
        for slot in (0..1000).filter(|slot| slot % 7 != 3) {
            assert!(groups.remove(key, session(slot)));
            assert!(!groups.remove(key, session(slot)));
        }
        assert!(groups.add(key, session(0)));
        let expected: Vec<_> = (0..1000).filter(|slot| slot % 7 == 3).chain([0]).map(session).collect();
        assert_eq!(groups.members(key).collect::<Vec<_>>(), expected);
        assert_eq!(groups.len(key), expected.len());
        assert!(groups.group(key).unwrap().members.len() <= 2 * expected.len() + HOLES_MIN + 1);
    }

    #[test]
    fn a_group_is_forgotten_when_empty_and_its_key_dies_with_it() {
        let mut groups = Groups::default();
        let red = groups.open("red");
        groups.add(red, session(1));
        assert!(!groups.forget(red));
        groups.remove(red, session(1));
        assert!(groups.forget(red));
        let blue = groups.open("blue");
        assert_ne!(red, blue);
        assert!(!groups.add(red, session(1)));
        assert_eq!((groups.find("red"), groups.name(red), groups.name(blue)), (None, None, Some("blue")));
        assert_eq!((groups.len(red), groups.members(red).count()), (0, 0));
    }
}
