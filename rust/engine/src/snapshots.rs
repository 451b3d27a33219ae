//! Which snapshots of worlds were sent to whom, and which of them wait to leave.

use smallvec::SmallVec;

use crate::room::RoomNumber;

/// Those of each session whose client shows the world, by the session's place: close together, since a tick's end asks for all of
/// them, and as long as nobody shows it, nothing.
#[derive(Debug, Default)]
pub(crate) struct AllSnapshots(Vec<Option<Snapshots>>);

impl AllSnapshots {
    pub fn get(&self, place: u32) -> Option<&Snapshots> {
        self.0.get(place as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, place: u32) -> Option<&mut Snapshots> {
        self.0.get_mut(place as usize)?.as_mut()
    }

    pub fn set(&mut self, place: u32, snapshots: Option<Snapshots>) {
        let place = place as usize;
        if self.0.len() <= place && snapshots.is_some() {
            self.0.resize_with(place + 1, || None);
        }
        if let Some(here) = self.0.get_mut(place) {
            *here = snapshots;
        }
    }

    pub fn take(&mut self, place: u32) -> Option<Snapshots> {
        self.0.get_mut(place as usize)?.take()
    }
}

/// Which snapshots were sent to one.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// The number of the last one; they wrap.
    last: u16,
    /// Of which no byte has left, as far as is known: one for each room, by its number; the app's is room 0.
    waiting: SmallVec<[(RoomNumber, u16); 1]>,
}

impl Snapshots {
    /// Whether the last one of this room waits.
    pub fn waits(&self, room: RoomNumber) -> bool {
        self.waiting.iter().any(|&(of, _)| of == room)
    }

    /// The number of the next one, which waits in the place of the room's last; `None`: those of too many rooms do.
    pub fn next(&mut self, room: RoomNumber) -> Option<u16> {
        let next = self.last.wrapping_add(1);
        match self.waiting.iter().position(|&(of, _)| of == room) {
            Some(at) => self.waiting[at].1 = next,
            None if self.waiting.len() < ROOMS_WAITING_MAX => self.waiting.push((room, next)),
            None => return None,
        }
        self.last = next;
        Some(next)
    }

    /// This one and all before it have left.
    pub fn left(&mut self, number: u16) {
        self.waiting.retain(|&mut (_, other)| number.wrapping_sub(other) >= 1 << 15);
    }
}

/// Who joins and leaves rooms without reading is sent no more worlds.
const ROOMS_WAITING_MAX: usize = 32;
