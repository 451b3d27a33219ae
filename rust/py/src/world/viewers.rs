//! Which session sees what: a viewer of the world for each session whose client shows it, and its snapshot at each tick's end.

use engine::event::{LinkId, Span};
use engine::realm::{Realm, RoomNumber};
use engine::session::SessionKey;
use rustc_hash::FxHashMap;
use slab::Slab;
use world::{Handle, Part, Placement, View, ViewerKey, World};

/// Snapshots of the app's world are pushed to this route, those of room 17's to `$w@17`. docs/wire.md has their bytes.
const ROUTE: &str = "$w";

/// Who looks at a world.
pub struct Viewers {
    /// How far a session sees that was not told otherwise.
    pub radius: f64,
    /// Whose world it is; 0: the app's.
    room: RoomNumber,
    route: String,
    /// In one piece of memory: all are walked at each tick's end.
    watchers: Slab<Watcher>,
    /// Their places.
    by_session: FxHashMap<SessionKey, usize>,
    parts: Vec<Part>,
    due: Vec<Due>,
}

/// A snapshot that is to be pushed.
struct Due {
    place: usize,
    link: LinkId,
    first: usize,
    end: usize,
}

struct Watcher {
    session: SessionKey,
    key: ViewerKey,
    /// The connection that its client was last told by.
    link: Option<LinkId>,
    /// The tick of its last snapshot; 0: none.
    last: u32,
    look: Look,
    /// What is followed.
    following: Option<(usize, Handle)>,
}

/// What a session looks at.
pub enum Look {
    /// The first entity of its own that is on the grid, as far as this.
    Own(f64),
    /// Something else.
    At(View),
}

impl Viewers {
    /// Nobody.
    pub fn new(radius: f64) -> Self {
        Self {
            radius,
            room: 0,
            route: ROUTE.to_owned(),
            watchers: Slab::new(),
            by_session: FxHashMap::default(),
            parts: Vec::new(),
            due: Vec::new(),
        }
    }

    /// The world is this room's.
    pub fn belong_to(&mut self, room: RoomNumber) {
        (self.room, self.route) = (room, format!("{ROUTE}@{room}"));
    }

    /// A session has joined whose client shows the world.
    pub fn joined(&mut self, world: &mut World, session: SessionKey) {
        let key = world.add_viewer(session.to_bits(), View::Nothing);
        let look = Look::Own(self.radius);
        let place =
            self.watchers.insert(Watcher { session, key, link: None, last: 0, look, following: None });
        self.by_session.insert(session, place);
    }

    /// It is gone.
    pub fn left(&mut self, world: &mut World, session: SessionKey) {
        if let Some(place) = self.by_session.remove(&session) {
            world.remove_viewer(self.watchers.remove(place).key);
        }
    }

    /// All are gone.
    pub fn clear(&mut self, world: &mut World) {
        self.by_session.clear();
        for watcher in self.watchers.drain() {
            world.remove_viewer(watcher.key);
        }
    }

    /// It looks at something else from the end of this tick on. False if its client does not show the world.
    pub fn look(&mut self, world: &mut World, session: SessionKey, look: Look) -> bool {
        let Some(&place) = self.by_session.get(&session) else { return false };
        let watcher = &mut self.watchers[place];
        if let Look::At(view) = &look {
            world.set_view(watcher.key, view.clone());
        } else {
            world.set_view(watcher.key, View::Nothing);
        }
        (watcher.look, watcher.following) = (look, None);
        true
    }

    /// At a tick's end: what each is to be sent goes to the realm.
    pub fn send(&mut self, world: &mut World, realm: &mut Realm) {
        let Self { room, route, watchers, parts, due, .. } = self;
        parts.clear();
        due.clear();
        for (place, watcher) in watchers.iter_mut() {
            let Some((link, waits)) = realm.snapshot_link(watcher.session, *room) else { continue };
            watcher.settle(world, link, waits);
            watcher.follow(world);
            let first = parts.len();
            if world.snapshot(watcher.key, parts) {
                watcher.last = world.tick();
                due.push(Due { place, link, first, end: parts.len() });
            }
        }
        // Each reactor's log gets all bytes once: the snapshots are references into them.
        let mut starts: Vec<Option<u32>> = Vec::new();
        for &Due { place, link, first, end } in &*due {
            let watcher = &mut watchers[place];
            let reactor = usize::from(link.reactor());
            if starts.len() <= reactor {
                starts.resize(reactor + 1, None);
            }
            let start = *starts[reactor]
                .get_or_insert_with(|| realm.downs(link.reactor()).store(world.bytes()).start);
            let spans =
                parts[first..end].iter().map(|part| Span { start: start + part.start, len: part.len });
            let is_taken = realm.push_snapshot(watcher.session, *room, route, spans);
            if !is_taken {
                world.lost(watcher.key, watcher.last);
                watcher.last = 0;
            }
        }
    }
}

impl Watcher {
    /// What has become of its last snapshot.
    fn settle(&mut self, world: &mut World, link: LinkId, waits: bool) {
        if self.link != Some(link) {
            world.forget(self.key);
        } else if self.last != 0 && waits {
            world.lost(self.key, self.last); // the next one takes its place
        } else if self.last != 0 {
            world.arrived(self.key, self.last);
        }
        (self.link, self.last) = (Some(link), 0);
    }

    fn follow(&mut self, world: &mut World) {
        let Look::Own(radius) = self.look else { return };
        let owner = self.session.to_bits();
        let is_own = |(table, handle)| world.owner(table, handle) == Some(owner);
        if self.following.is_some_and(is_own) {
            return;
        }
        let on_grid =
            |(table, _): &(usize, Handle)| world.shape().tables()[*table].placement != Placement::Global;
        let next = world.owned(owner).find(on_grid);
        if let Some((table, handle)) = next {
            world.set_view(self.key, View::Entity { table, handle, radius });
            self.following = next;
        }
    }
}
