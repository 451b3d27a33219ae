//! A server's links and its realm, and a client's link that talks to them: no sockets, and a time of their own.
//!
//! [`Server`] is the server's half, fed with bytes; [`Pair`] adds a client. Both enums go through bytes on their way.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod returning;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use engine::event::{Class, Close, Down, DownLog, LinkId, Message, Nanos, Up, UpLog};
use engine::link::{
    ClientUpgrade, Ending, Full, Greeting, Link, LinkConfig, Next, Outbox, Pass, Phase, SharedPush, Taken,
};
use engine::realm::{Event, Left, Realm, RealmConfig, SessionKey};
use engine::route::RouteTable;

pub const SECOND: Nanos = 1_000_000_000;
/// When the time of the tests begins: not at zero, as no clock does.
pub const START: Nanos = 1_000 * SECOND;

pub fn secs(seconds: u64) -> Nanos {
    seconds * SECOND
}

/// Bytes written as spaced hex.
pub fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits")).collect()
}

/// The other way round.
pub fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

// -- one end of a connection -----------------------------------------------------------------------------------------

/// A packet that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub class: Class,
    pub key: u64,
    pub bytes: Vec<u8>,
}

/// A socket's queue, as a list.
#[derive(Debug)]
pub struct Queue {
    pub packets: VecDeque<Packet>,
    pub bytes_max: usize,
    pub rtt_us: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { packets: VecDeque::new(), bytes_max: usize::MAX, rtt_us: 0 }
    }
}

impl Queue {
    pub fn len_bytes(&self) -> usize {
        self.packets.iter().map(|packet| packet.bytes.len()).sum()
    }
}

impl Outbox for Queue {
    fn packet(&mut self, class: Class, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        // Others are before it in the same buffer, as in the real one.
        let mut buffer = b"before".to_vec();
        write(&mut buffer);
        let bytes = buffer.split_off(b"before".len());
        if self.len_bytes() + bytes.len() > self.bytes_max {
            return Err(Full);
        }
        self.packets.push_back(Packet { class, key, bytes });
        Ok(())
    }

    fn block(&mut self, class: Class, key: u64, bytes: &Arc<Bytes>) -> Result<(), Full> {
        self.packet(class, key, |buffer| buffer.extend_from_slice(bytes))
    }

    fn rtt_us(&self) -> u32 {
        self.rtt_us
    }
}

/// A link and its socket: the bytes that came and were not taken, and those that wait to be sent.
pub struct End {
    pub link: Link,
    pub queue: Queue,
    pub ups: UpLog,
    pub budget: usize,
    /// How often the budget was given.
    pub passes: usize,
    input: Vec<u8>,
    needed: usize,
    is_mute: bool,
}

impl End {
    pub fn new(link: Link) -> Self {
        Self {
            link,
            queue: Queue::default(),
            ups: UpLog::default(),
            budget: 128,
            passes: 0,
            input: Vec::new(),
            needed: 1,
            is_mute: false,
        }
    }

    /// From now on nothing that it sends arrives.
    pub fn mute(&mut self) {
        self.is_mute = true;
    }

    pub fn unmute(&mut self) {
        self.is_mute = false;
    }

    /// Bytes arrive.
    pub fn feed(&mut self, now: Nanos, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        // A beginning is a sign of life, to who listens.
        let is_read = !self.link.held() && self.link.ending() == Ending::No;
        if is_read && !bytes.is_empty() && self.input.len() < self.needed {
            self.link.handle_heard(now, &mut self.ups);
        }
        self.read(now);
    }

    /// Gives the link what it can take: as the contract of `handle_bytes` has it.
    pub fn read(&mut self, now: Nanos) {
        while !self.link.held() && self.link.ending() != Ending::Now {
            let has_leftover = self.link.has_leftover();
            if !has_leftover && self.input.len() < self.needed {
                return;
            }
            self.passes += 1;
            let mut pass = Pass { budget: self.budget, at: now };
            let bytes = if has_leftover { &mut [][..] } else { &mut self.input[..] };
            let offered = bytes.len();
            let result = self.link.handle_bytes(now, bytes, &mut pass, &mut self.ups, &mut self.queue);
            let Ok(Taken { consumed, next }) = result else {
                self.input.clear();
                return;
            };
            assert!(consumed <= offered);
            self.input.drain(..consumed);
            self.needed = match next {
                Next::Bytes(needed) => {
                    assert!(needed > offered - consumed, "it has so many already");
                    if has_leftover { 1 } else { needed }
                }
                Next::Again => {
                    assert_eq!(pass.budget, 0, "it gave up within its budget");
                    1
                }
                Next::Held => {
                    assert!(self.link.held());
                    1
                }
            };
        }
    }

    /// Everything that is queued leaves.
    pub fn send(&mut self) -> Vec<u8> {
        let bytes: Vec<u8> = self.queue.packets.drain(..).flat_map(|packet| packet.bytes).collect();
        self.link.handle_sent(0, &mut self.ups);
        if self.is_mute { Vec::new() } else { bytes }
    }
}

// -- the server's half -----------------------------------------------------------------------------------------------

/// A message that reached a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Request { id: u32, route: String, body: Vec<u8> },
    Notify { route: String, body: Vec<u8> },
}

/// What `authenticate` does.
#[derive(Clone, Debug)]
pub enum Authenticate {
    Guest,
    Uid(String),
    Refuse,
    /// It never answers: the test does.
    Wait,
}

/// How things are set up.
#[derive(Clone)]
pub struct Setup {
    pub link: LinkConfig,
    pub realm: RealmConfig,
    pub authenticate: Authenticate,
    pub websocket: bool,
    /// The client's handshake.
    pub handshake: String,
    /// The pipes carry so many bytes in one piece.
    pub cut: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let mut routes = RouteTable::new();
        for route in ["echo", "note", "hold"] {
            routes.intern(route);
        }
        Self {
            link: LinkConfig { routes: Arc::new(routes), ..LinkConfig::default() },
            realm: RealmConfig::default(),
            authenticate: Authenticate::Guest,
            websocket: false,
            handshake: r#"{"sys":{"type":"test"},"user":{}}"#.to_owned(),
            cut: usize::MAX,
        }
    }
}

/// Links and realm of a server whose handlers echo (`echo`), take note (`note`) and let wait (`hold`).
pub struct Server {
    pub now: Nanos,
    pub realm: Realm,
    pub ends: BTreeMap<LinkId, End>,
    pub authenticate: Authenticate,
    /// What the realm told the game.
    pub events: Vec<Event>,
    /// What the handlers got.
    pub got: Vec<Got>,
    /// What each link told, without the bytes.
    pub ups: Vec<Up>,
    /// The bytes of each `Up::HttpBytes`.
    pub http: Vec<u8>,
    config: Arc<LinkConfig>,
    links: u32,
}

impl Server {
    pub fn new(setup: &Setup) -> Self {
        let mut realm = Realm::new(setup.realm.clone(), setup.link.routes.clone());
        let mut log = UpLog::default();
        let seed = log.store(&[7; 32]);
        realm.handle_up(START, &Up::Seeded { seed }, &log);
        Self {
            now: START,
            realm,
            ends: BTreeMap::new(),
            authenticate: setup.authenticate.clone(),
            events: Vec::new(),
            got: Vec::new(),
            ups: Vec::new(),
            http: Vec::new(),
            config: Arc::new(setup.link.clone()),
            links: 0,
        }
    }

    /// Somebody connects.
    pub fn connect(&mut self) -> LinkId {
        self.links += 1;
        let id = LinkId::new(0, self.links - 1, self.links);
        let link = Link::server(self.now, id, self.config.clone(), "10.0.0.7:1234");
        self.ends.insert(id, End::new(link));
        id
    }

    /// Somebody connects and shakes hands; what the server said to it is thrown away.
    pub fn join(&mut self) -> (LinkId, SessionKey) {
        self.join_with(HANDSHAKE[1])
    }

    /// The same, with this handshake.
    pub fn join_with(&mut self, hello: &[u8]) -> (LinkId, SessionKey) {
        let link = self.connect();
        self.send(link, &[&[1, 0, 0, hello.len() as u8][..], hello].concat());
        self.send(link, &hex("02 00 00 00"));
        let session = self.realm.session_of(link).expect("it has shaken hands");
        (link, session)
    }

    pub fn end(&mut self, link: LinkId) -> &mut End {
        self.ends.get_mut(&link).expect("the link's socket is there")
    }

    /// Bytes arrive on a link, all in one; says what comes back.
    pub fn send(&mut self, link: LinkId, bytes: &[u8]) -> Vec<u8> {
        let now = self.now;
        self.end(link).feed(now, bytes);
        self.settle();
        self.take(link)
    }

    /// What is queued for a client leaves.
    pub fn take(&mut self, link: LinkId) -> Vec<u8> {
        let Some(end) = self.ends.get_mut(&link) else { return Vec::new() };
        let bytes = end.send();
        self.settle();
        bytes
    }

    /// Lets time pass: everything that is due happens at its moment.
    pub fn advance(&mut self, time: Nanos) {
        let end = self.now + time;
        while let Some(next) = self.next_timeout().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.handle_timeouts();
            self.settle();
        }
        self.now = end;
    }

    pub fn next_timeout(&self) -> Option<Nanos> {
        let links = self.ends.values().map(|end| end.link.next_timeout()).filter(|&due| due < Nanos::MAX);
        links.chain(self.realm.next_deadline()).min()
    }

    pub fn handle_timeouts(&mut self) {
        for end in self.ends.values_mut() {
            if end.link.next_timeout() <= self.now {
                let _ = end.link.handle_timeout(self.now, &mut end.ups, &mut end.queue);
                assert!(end.link.next_timeout() > self.now, "a timeout that is due again at once");
            }
        }
        self.realm.handle_timeout(self.now);
    }

    /// Carries what links and realm have to say to each other until nobody has more.
    pub fn settle(&mut self) {
        loop {
            let links: Vec<LinkId> = self.ends.keys().copied().collect();
            let mut moved = self.poll_events();
            for link in links {
                let log = std::mem::take(&mut self.end(link).ups);
                moved |= !log.is_empty();
                let log = through_bytes_up(&log);
                for up in &log.events {
                    self.dispatch(up, &log);
                    self.poll_events();
                }
            }
            let downs = std::mem::take(self.realm.downs(0));
            moved |= !downs.is_empty();
            self.apply(&through_bytes_down(&downs));
            if !moved {
                return;
            }
        }
    }

    /// Why this link ended; that it did so once is asserted.
    pub fn closed(&self, link: LinkId) -> Option<Close> {
        let mut whys = self.ups.iter().filter(|up| up.link() == link).skip_while(|up| !is_closed(up));
        let why = whys.next().map(|up| match *up {
            Up::Closed { why, .. } => why,
            _ => unreachable!(),
        });
        assert_eq!(whys.next(), None, "nothing follows the end");
        why
    }

    /// Who left, and why.
    pub fn left(&self) -> Vec<Left> {
        let left = |event: &Event| match event {
            Event::Left { why, .. } => Some(*why),
            _ => None,
        };
        self.events.iter().filter_map(left).collect()
    }

    /// The names of the events so far: `joined dropped left`.
    pub fn story(&self) -> String {
        let name = |event: &Event| match event {
            Event::Authenticate { .. } => "knocked",
            Event::Joined { .. } => "joined",
            Event::Dropped { .. } => "dropped",
            Event::Resumed { .. } => "resumed",
            Event::Congested { .. } => "congested",
            Event::Relieved { .. } => "relieved",
            Event::Left { .. } => "left",
            Event::Gone { .. } => "gone",
            Event::Timer { .. } => "timer",
            Event::RoomTicks { .. } => "room ticks",
        };
        self.events.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    fn poll_events(&mut self) -> bool {
        let before = self.events.len();
        while let Some(event) = self.realm.poll_event() {
            if let Event::Authenticate { session, .. } = event {
                match &self.authenticate {
                    Authenticate::Guest => _ = self.realm.accept(session, None),
                    Authenticate::Uid(uid) => _ = self.realm.accept(session, Some(uid)),
                    Authenticate::Refuse => self.realm.refuse(session, "no", "not you"),
                    Authenticate::Wait => {}
                }
            }
            if let Event::Left { session, .. } = event {
                assert!(self.realm.session(session).is_some(), "it can be asked while its end is told");
            }
            self.events.push(event);
        }
        self.events.len() > before
    }

    fn dispatch(&mut self, up: &Up, log: &UpLog) {
        self.ups.push(*up);
        match *up {
            Up::Messages { link, route, packets, count, .. } => {
                assert_eq!(log.messages(packets).count(), count as usize);
                let mut last = None; // from whom one came since which nothing happened but its answer
                for Message { request, body } in log.messages(packets) {
                    let admit_next = |&key: &SessionKey| {
                        self.realm.admit_next(link, key, request, body.len(), QUEUED_BYTES_MAX)
                    };
                    let key = match last.filter(admit_next) {
                        Some(key) => key,
                        None => match self.realm.admit(self.now, link, request, body.len()) {
                            Some(from) => from.session,
                            None => continue,
                        },
                    };
                    last = Some(key);
                    let route = self.config.routes.name(route).to_owned();
                    let Some(id) = request else {
                        self.got.push(Got::Notify { route, body: body.to_vec() });
                        continue;
                    };
                    match route.as_str() {
                        "hold" => {
                            self.realm.defer(key, id);
                            last = None;
                        }
                        _ => self.realm.respond(key, link, id, body),
                    }
                    self.got.push(Got::Request { id, route, body: body.to_vec() });
                }
            }
            Up::HttpBytes { body, .. } => self.http.extend_from_slice(log.bytes(body)),
            _ => self.realm.handle_up(self.now, up, log),
        }
    }

    fn apply(&mut self, downs: &DownLog) {
        for down in &downs.events {
            if let Down::Broadcast { targets, class, key, route, body } = *down {
                let shared = SharedPush::new(class, downs.bytes(route), downs.bytes(body));
                for target in downs.bytes(targets).chunks_exact(8) {
                    let id = LinkId::from_bits(u64::from_le_bytes(target.try_into().expect("8 bytes")));
                    if let Some(end) = self.ends.get_mut(&id) {
                        let (ups, out) = (&mut end.ups, &mut end.queue);
                        let _ = end.link.handle_shared(self.now, &shared, class, key, ups, out);
                    }
                }
            } else if let Some(end) = down.link().and_then(|id| self.ends.get_mut(&id)) {
                let _ = end.link.handle_down(self.now, down, downs, &mut end.ups, &mut end.queue);
                end.read(self.now); // it may have been held
            }
        }
    }
}

/// Beyond that much a message is looked at closely.
const QUEUED_BYTES_MAX: u32 = 100;

fn is_closed(up: &Up) -> bool {
    matches!(up, Up::Closed { .. })
}

fn through_bytes_up(log: &UpLog) -> UpLog {
    let mut bytes = Vec::new();
    log.encode(&mut bytes);
    UpLog::decode(&bytes).expect("a log that was just encoded")
}

fn through_bytes_down(log: &DownLog) -> DownLog {
    let mut bytes = Vec::new();
    log.encode(&mut bytes);
    DownLog::decode(&bytes).expect("a log that was just encoded")
}

/// A client's first packet: `{"sys":{},"user":{}}`.
pub const HANDSHAKE: [&[u8]; 2] = [&[1, 0, 0, 20], br#"{"sys":{},"user":{}}"#];

// -- both halves -----------------------------------------------------------------------------------------------------

/// What the client's link told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    Handshake(String),
    Ready,
    Response { id: u32, error: bool, body: Vec<u8> },
    Push { route: String, body: Vec<u8> },
    Kicked(String),
    Silent,
    Heard,
    Closed(Close),
}

/// A client and a server.
pub struct Pair {
    pub server: Server,
    pub client: End,
    /// The server's end.
    pub link: LinkId,
    pub saw: Vec<Saw>,
    /// The client takes nothing: what the server sends stays in its queue.
    pub is_stuck: bool,
    cut: usize,
    is_cut_off: bool,
}

impl Pair {
    /// A client that is about to shake hands.
    pub fn new(setup: Setup) -> Self {
        let mut server = Server::new(&setup);
        let link = server.connect();
        let websocket = setup.websocket.then(|| ClientUpgrade {
            host: "game.example:7777".to_owned(),
            path: "/".to_owned(),
            key: *b"the sample nonce",
        });
        let greeting = Greeting { handshake: setup.handshake.clone().into_bytes(), websocket, mask_seed: 7 };
        let id = LinkId::new(9, 0, 0);
        let mut client = End::new(Link::client(START, id, Arc::new(setup.link.clone()), greeting));
        client.link.start(&mut client.queue).expect("a client's link, and room for its handshake");
        Self { server, client, link, saw: Vec::new(), is_stuck: false, cut: setup.cut, is_cut_off: false }
    }

    /// A client with whom all is well.
    pub fn connected() -> Self {
        Self::connected_by(Setup::default())
    }

    /// The same, over WebSocket.
    pub fn connected_by_websocket() -> Self {
        Self::connected_by(Setup { websocket: true, ..Setup::default() })
    }

    pub fn connected_by(setup: Setup) -> Self {
        let mut pair = Self::new(setup);
        pair.run();
        assert_eq!(pair.client.link.phase(), Phase::Ready);
        assert_eq!(pair.server.end(pair.link).link.phase(), Phase::Ready);
        assert_eq!(pair.server.story(), "knocked joined");
        pair
    }

    pub fn now(&self) -> Nanos {
        self.server.now
    }

    pub fn session(&self) -> SessionKey {
        self.server.realm.session_of(self.link).expect("its session is there")
    }

    /// Carries bytes both ways until nobody has more.
    pub fn run(&mut self) {
        loop {
            let now = self.server.now;
            self.server.settle();
            let up = self.client.send();
            let mut moved = !up.is_empty();
            if let Some(end) = self.server.ends.get_mut(&self.link) {
                pieces(&up, self.cut).for_each(|piece| end.feed(now, piece));
            }
            self.server.settle();
            if !self.is_stuck && !self.is_cut_off {
                let down = self.server.take(self.link);
                moved |= !down.is_empty();
                pieces(&down, self.cut).for_each(|piece| self.client.feed(now, piece));
                moved |= self.end_sockets();
            }
            self.note();
            if !moved {
                return;
            }
        }
    }

    /// Lets time pass on both sides.
    pub fn advance(&mut self, time: Nanos) {
        self.run();
        let end = self.now() + time;
        loop {
            let client = Some(self.client.link.next_timeout()).filter(|&due| due < Nanos::MAX);
            let next = client.into_iter().chain(self.server.next_timeout()).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            self.server.now = self.server.now.max(next);
            let now = self.server.now;
            self.server.handle_timeouts();
            let _ = self.client.link.handle_timeout(now, &mut self.client.ups, &mut self.client.queue);
            self.run();
        }
        self.server.now = end;
    }

    /// The client asks.
    pub fn request(&mut self, id: u32, route: &str, body: &[u8]) {
        let mut log = DownLog::default();
        let (route, body) = (log.store(route.as_bytes()), log.store(body));
        self.client_does(Down::Request { link: self.client.link.id(), id, route, body }, &log);
    }

    /// The client tells.
    pub fn notify(&mut self, route: &str, body: &[u8]) {
        let mut log = DownLog::default();
        let (route, body) = (log.store(route.as_bytes()), log.store(body));
        self.client_does(Down::Notify { link: self.client.link.id(), route, body }, &log);
    }

    /// The client's game asks its link.
    pub fn client_does(&mut self, down: Down, log: &DownLog) {
        let (now, client) = (self.server.now, &mut self.client);
        let _ = client.link.handle_down(now, &down, log, &mut client.ups, &mut client.queue);
        self.note();
    }

    /// The network is gone: nothing passes, and the server's socket fails.
    pub fn cut_off(&mut self) {
        self.client.mute();
        self.is_cut_off = true;
        let now = self.server.now;
        let end = self.server.end(self.link);
        end.link.handle_end(now, Close::Reset, &mut end.ups);
        self.server.settle();
    }

    /// Why the server's link ended.
    pub fn closed(&self) -> Option<Close> {
        self.server.closed(self.link)
    }

    /// The responses and pushes that the client has seen.
    pub fn bodies(&self) -> Vec<String> {
        let body = |saw: &Saw| match saw {
            Saw::Response { body, .. } | Saw::Push { body, .. } => Some(String::from_utf8_lossy(body).into()),
            _ => None,
        };
        self.saw.iter().filter_map(body).collect()
    }

    fn end_sockets(&mut self) -> bool {
        let now = self.server.now;
        let Some(end) = self.server.ends.get_mut(&self.link) else { return false };
        if end.link.ending() == Ending::No || !end.queue.packets.is_empty() {
            return false;
        }
        let unsaid = self.client.link.ending() == Ending::No;
        self.client.link.handle_eof(now, &mut self.client.ups);
        unsaid
    }

    fn note(&mut self) {
        let log = std::mem::take(&mut self.client.ups);
        let text = |span| String::from_utf8_lossy(log.bytes(span)).into_owned();
        for up in &log.events {
            self.saw.push(match *up {
                Up::Handshake { body, .. } => Saw::Handshake(text(body)),
                Up::Ready { .. } => Saw::Ready,
                Up::Response { id, error, body, .. } => {
                    Saw::Response { id, error, body: log.bytes(body).to_vec() }
                }
                Up::Push { route, body, .. } => {
                    Saw::Push { route: text(route), body: log.bytes(body).to_vec() }
                }
                Up::Kicked { body, .. } => Saw::Kicked(text(body)),
                Up::Silent { .. } => Saw::Silent,
                Up::Heard { .. } => Saw::Heard,
                Up::Closed { why, .. } => Saw::Closed(why),
                Up::Meter { .. } | Up::Ignored { .. } => continue,
                _ => panic!("{up:?} is nothing that a client tells"),
            });
        }
    }
}

fn pieces(bytes: &[u8], cut: usize) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(cut.clamp(1, bytes.len().max(1)))
}
