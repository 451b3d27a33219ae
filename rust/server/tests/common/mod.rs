//! A server with real sockets and a game in Rust, and clients that are driven from the same thread.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::event::{Close, Down, LinkId, Message, Up, UpLog};
use engine::link::LinkConfig;
use engine::realm::{Event, RealmConfig};
use engine::route::RouteTable;
use engine::session::SessionKey;
use net::address::Address;
use server::options::Options;
use server::turn::Server;
use wire::packet::{self, PacketKind};
use wire::websocket::frame::{OpCode, encode_frame};
use wire::websocket::upgrade;

/// Longer than anything here takes: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Game {
    pub server: Server,
    /// Where it listens; of no use on a Unix socket.
    pub address: SocketAddr,
    pub logs: Vec<UpLog>,
    pub answered: u64,
    /// Sessions that joined, so far.
    pub joined: usize,
    pub large: Vec<u8>,
    /// Requests of clients that do not take their answers, who are not read meanwhile; as Python's side keeps them.
    pub waiting: BTreeMap<u64, VecDeque<Asked>>,
    /// Bytes of answers on their way to one client, beyond which its further requests wait.
    pub answers_bytes_max: u32,
    /// Requests to `hold`, which the test answers.
    pub held: Vec<(SessionKey, LinkId, u32)>,
    /// The heads of plain HTTP, answered when they are whole.
    pub http: BTreeMap<u64, Vec<u8>>,
}

pub struct Asked {
    pub link: LinkId,
    pub id: u32,
    pub route: u32,
    pub body: Vec<u8>,
}

impl Game {
    pub fn new(io_threads: u8, change: impl FnOnce(&mut Options, &mut LinkConfig)) -> Self {
        let mut routes = RouteTable::new();
        routes.intern("echo");
        routes.intern("large");
        let hold = routes.intern("hold");
        assert_eq!(hold.0, HOLD);
        let mut link = LinkConfig { routes: Arc::new(routes), ..LinkConfig::default() };
        let mut options = Options {
            addresses: vec![Address::Tcp("127.0.0.1:0".parse().unwrap())],
            tls: None,
            io_threads,
            spin: false,
            connections_max: 0,
            connections_per_address_max: 0,
            connect_rate: None,
            queue_bytes_max: 1 << 20,
            tick_rate: 0,
            catch_up_max: 1,
            dilate: false,
            link: Arc::default(),
            realm: RealmConfig { reactors: io_threads + 1, ..RealmConfig::default() },
            through_bytes: false,
        };
        change(&mut options, &mut link);
        options.link = Arc::new(link);
        let mut server = Server::new(options).unwrap();
        let Ok(addresses) = server.listen() else { panic!("cannot listen") };
        let address = addresses[0].parse().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        server.start().unwrap();
        Self {
            server,
            address,
            logs: Vec::new(),
            answered: 0,
            joined: 0,
            large: vec![7; 4_001],
            waiting: BTreeMap::new(),
            answers_bytes_max: 64 * 1024,
            held: Vec::new(),
            http: BTreeMap::new(),
        }
    }

    /// One turn; it waits 5 ms at most, for the test to look at its clients.
    pub fn turn(&mut self) {
        self.server.flush(false);
        self.server.wait(Some(net::sys::monotonic_now() + 5_000_000)).unwrap();
        while self.part() {}
    }

    /// What one read brought. Whether there is more.
    pub fn part(&mut self) -> bool {
        let mut logs = std::mem::take(&mut self.logs);
        let more = self.server.read(&mut logs);
        let now = self.server.now();
        for log in &logs {
            for up in &log.events {
                match *up {
                    Up::Messages { link, route, packets, .. } => {
                        for Message { request, body } in log.messages(packets) {
                            let realm = &mut self.server.realm;
                            let Some(from) = realm.admit(now, link, request, body.len()) else { continue };
                            let (key, Some(id)) = (from.session, request) else { continue };
                            if route.0 == HOLD {
                                realm.defer(key, id);
                                self.held.push((key, link, id));
                            } else {
                                self.ask(key, Asked { link, id, route: route.0, body: body.to_vec() });
                            }
                        }
                    }
                    Up::HttpBytes { link, body } => self.serve_http(link, log.bytes(body)),
                    _ => self.server.realm.handle_up(now, up, log),
                }
                let realm = &mut self.server.realm;
                while let Some(event) = realm.poll_event() {
                    match event {
                        Event::Authenticate { session, .. } => realm.accept(session, None).unwrap(),
                        Event::Joined { .. } => self.joined += 1,
                        _ => {}
                    }
                }
            }
        }
        for bits in self.waiting.keys().copied().collect::<Vec<_>>() {
            let key = SessionKey::from_bits(bits);
            if self.go_on(key) {
                self.server.realm.resume(key);
            }
        }
        self.server.handle_timeouts();
        self.server.flush(true);
        self.server.recycle(&mut logs);
        self.logs = logs;
        more
    }

    fn serve_http(&mut self, link: LinkId, bytes: &[u8]) {
        let head = self.http.entry(link.to_bits()).or_default();
        head.extend_from_slice(bytes);
        if head.ends_with(b"\r\n\r\n") {
            let downs = self.server.realm.downs(link.reactor());
            let body = downs.store(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            downs.push(Down::HttpBytes { link, body });
            downs.push(Down::Close { link, why: Close::Closed });
        }
    }

    /// Answers, or has the request wait behind others of its session.
    pub fn ask(&mut self, key: SessionKey, asked: Asked) {
        let waiting = self.waiting.entry(key.to_bits()).or_default();
        waiting.push_back(asked);
        if waiting.len() == 1 && !self.go_on(key) {
            self.server.realm.pause(key);
        }
    }

    /// Answers as many as may be answered now. Whether none waits any more.
    pub fn go_on(&mut self, key: SessionKey) -> bool {
        let realm = &mut self.server.realm;
        let Some(waiting) = self.waiting.get_mut(&key.to_bits()) else { return true };
        while realm.session(key).is_some_and(|session| session.queued_bytes() <= self.answers_bytes_max)
            && let Some(Asked { link, id, route, body }) = waiting.pop_front()
        {
            self.answered += 1;
            realm.respond(key, link, id, if route == 0 { &body } else { &self.large });
        }
        let is_done = waiting.is_empty() || realm.session(key).is_none();
        if is_done {
            self.waiting.remove(&key.to_bits());
        }
        is_done
    }

    /// Turns until `done`. Says how many it took.
    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> usize {
        let began = Instant::now();
        let mut turns = 0;
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "what was waited for did not happen");
            self.turn();
            turns += 1;
        }
        turns
    }

    pub fn closed(&self, why: Close) -> u64 {
        self.server.realm.stats().closed(why)
    }

    /// A client whose session is up.
    pub fn connect(&mut self) -> Client {
        self.join(Client::new(self.address))
    }

    /// Shakes hands. With threads the client may know of it before the realm does.
    pub fn join<S: Read + Write>(&mut self, mut client: Client<S>) -> Client<S> {
        let joined = self.joined + 1;
        client.send(&hello());
        self.until(|_| client.packet(PacketKind::Heartbeat).is_some());
        self.until(|game| game.joined == joined);
        client
    }

    /// Everybody goes; nothing may be left.
    pub fn end(mut self) {
        self.server.stop_listening();
        self.server.realm.shutdown("bye");
        self.server.flush(false);
        self.server.close();
        // Those that linger, for the kick to arrive, are the reactor's alone.
        assert_eq!(self.server.pool().stats().out, 0);
    }
}

/// A client over a stream that does not block.
pub struct Client<S = TcpStream> {
    pub stream: S,
    pub received: Vec<u8>,
    pub ended: bool,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::new(), ended: false }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn receive(&mut self) {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(bytes) => {
                    self.received.extend_from_slice(&buffer[..bytes]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.ended = true,
            }
            return;
        }
    }

    /// The next packet of this kind that is there; others before it are dropped.
    pub fn packet(&mut self, kind: PacketKind) -> Option<Vec<u8>> {
        self.receive();
        loop {
            let packet::Decoded::Complete { item, consumed } =
                packet::decode(&self.received, 1 << 24).unwrap()
            else {
                return None;
            };
            let found = (item.kind == kind).then(|| item.body.to_vec());
            self.received.drain(..consumed);
            if found.is_some() {
                return found;
            }
        }
    }

    pub fn is_ended(&mut self) -> bool {
        self.receive();
        self.ended
    }
}

/// Handshake and its acknowledgement in one.
pub fn hello() -> Vec<u8> {
    let mut bytes = packet(PacketKind::Handshake, br#"{"sys":{},"user":{}}"#);
    packet::encode(PacketKind::HandshakeAck, b"", &mut bytes);
    bytes
}

pub fn packet(kind: PacketKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::encode(kind, body, &mut bytes);
    bytes
}

pub fn request(id: u8, route: &str, body: &[u8]) -> Vec<u8> {
    assert!(id < 128);
    packet(PacketKind::Data, &[&[0, id, route.len() as u8], route.as_bytes(), body].concat())
}

pub fn on_both(test: fn(u8)) {
    [0, 2].into_iter().for_each(test);
}

/// A protocol's name, all that a client says, and whether what came is the whole answer.
pub type Conversation = (&'static str, fn() -> Vec<u8>, fn(&[u8]) -> bool);

/// A short conversation in each protocol; the answer needs the last byte.
pub const CONVERSATIONS: [Conversation; 3] = [
    (
        "packets",
        || [hello(), request(1, "echo", b"!")].concat(),
        |came| came.ends_with(b"\x04\0\0\x03\x04\x01!"),
    ),
    ("WebSocket", in_frames, |came| came.ends_with(b"\x82\x07\x04\0\0\x03\x04\x01!")),
    ("HTTP", || b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(), |came| came.ends_with(b"\r\n\r\nok")),
];

/// The same packets as ever, over WebSocket, one of them in two frames.
fn in_frames() -> Vec<u8> {
    let mut bytes = upgrade::request("here", "/", None, *b"the sample nonce").unwrap();
    let packets = [hello(), request(1, "echo", b"!")].concat();
    let (first, second) = packets.split_at(packets.len() - 5);
    for payload in [first, second] {
        encode_frame(OpCode::Binary, true, Some([1, 2, 3, 4]), payload, &mut bytes);
    }
    bytes
}

const HOLD: u32 = 2;
