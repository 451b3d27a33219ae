//! Whether a socket may be told of late: if what its link sends waits for a tick anyway, and there are wakes to spare.

use engine::event::{Nanos, Up};
use engine::route::RouteTable;

/// What is known of one link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Reads that told of nothing but messages which wait for a tick: up to `PATIENT`, then the socket is told of late. Of one that
    /// is, between that and twice as many, so that it has some way to go before it no longer is.
    reads: u8,
}

impl Patience {
    /// Looks at what a read has told of, after a wait that was not [`is_long`] if it `is_rushed`. Says whether the socket is told of
    /// late from now on, if that changes.
    #[inline]
    pub fn judge(&mut self, told: &[Up], routes: &RouteTable, is_rushed: bool) -> Option<bool> {
        let is_seen = |up: &Up| matches!(up, Up::Seen { .. });
        if told.iter().all(is_seen) {
            return None; // nobody waits for that
        }
        let waits = |up: &Up| matches!(*up, Up::Messages { route, room: 0, .. } if routes.waits(route));
        let was_late = self.reads > PATIENT;
        self.reads = if !told.iter().all(|up| waits(up) || is_seen(up)) {
            0
        } else if is_rushed {
            (self.reads + 1).min(2 * PATIENT)
        } else {
            self.reads.saturating_sub(LEISURE)
        };
        let is_late = if was_late { self.reads > PATIENT } else { self.reads == PATIENT };
        if is_late == was_late {
            return None;
        }
        self.reads = if is_late { 2 * PATIENT } else { 0 };
        Some(is_late)
    }
}

/// Whether a wait was so long that no wake would have been spared. Waits for sockets that are told of late are shorter.
#[inline]
pub fn is_long(wait: Nanos) -> bool {
    wait >= 2_000_000
}

/// After so many reads, at 60 a second about one second.
const PATIENT: u8 = 64;
/// A read after a long wait undoes so many others.
const LEISURE: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use engine::event::{LinkId, RouteId, Span};

    const MOVES: RouteId = RouteId(0);
    const CHAT: RouteId = RouteId(1);

    fn routes() -> RouteTable {
        let mut routes = RouteTable::new();
        assert_eq!((routes.intern("Moves"), routes.intern("Chat")), (MOVES, CHAT));
        routes.set_waiting(vec![MOVES]);
        routes
    }

    fn link() -> LinkId {
        LinkId::new(0, 1, 1)
    }

    fn messages(route: RouteId) -> Up {
        Up::Messages { link: link(), route, room: 0, packets: Span { start: 0, len: 8 }, count: 1 }
    }

    /// What changed while it was told the same so many times: after how many, and to what.
    fn after(patience: &mut Patience, told: &[Up], times: u32, is_rushed: bool) -> Option<(u32, bool)> {
        let routes = routes();
        let changed: Vec<_> =
            (1..=times).filter_map(|time| Some((time, patience.judge(told, &routes, is_rushed)?))).collect();
        assert!(changed.len() <= 1, "{changed:?}");
        changed.first().copied()
    }

    #[test]
    fn who_sends_nothing_but_what_waits_is_told_of_late_until_it_sends_anything_else() {
        let mut patience = Patience::default();
        assert_eq!(after(&mut patience, &[messages(MOVES)], 1000, true), Some((64, true)));
        let mixed = [messages(MOVES), messages(CHAT)];
        assert_eq!(after(&mut patience, &mixed, 1000, true), Some((1, false)));
        assert_eq!(after(&mut patience, &[messages(MOVES)], 63, true), None);
        assert_eq!(after(&mut patience, &[messages(CHAT)], 1, true), None);
        assert_eq!(after(&mut patience, &[messages(MOVES)], 64, true), Some((64, true)));
    }

    #[test]
    fn what_a_link_has_seen_counts_neither_way() {
        let seen = Up::Seen { link: link(), count: 7 };
        let mut patience = Patience::default();
        assert_eq!(after(&mut patience, &[seen], 1000, true), None);
        assert_eq!(after(&mut patience, &[], 1000, true), None);
        assert_eq!(after(&mut patience, &[messages(MOVES), seen], 64, true), Some((64, true)));
        assert_eq!(after(&mut patience, &[seen], 1000, true), None);
    }

    #[test]
    fn a_message_of_a_room_does_not_wait() {
        let of_room = Up::Messages {
            link: link(),
            route: MOVES,
            room: 3,
            packets: Span { start: 0, len: 8 },
            count: 1,
        };
        assert_eq!(after(&mut Patience::default(), &[of_room], 1000, true), None);
    }

    #[test]
    fn where_there_are_no_wakes_to_spare_nobody_is_told_of_late() {
        let mut patience = Patience::default();
        assert_eq!(after(&mut patience, &[messages(MOVES)], 1000, false), None);
        assert_eq!(after(&mut patience, &[messages(MOVES)], 64, true), Some((64, true)));
        assert_eq!(after(&mut patience, &[messages(MOVES)], 15, false), None);
        assert_eq!(after(&mut patience, &[messages(MOVES)], 60, true), None);
        assert_eq!(after(&mut patience, &[messages(MOVES)], 1000, false), Some((16, false)));
    }
}
