//! A server with real sockets and a game in Rust: the house without Python, inline and with two threads.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::event::{Close, DownLog, LinkId, Up, UpLog};
use engine::link::LinkConfig;
use engine::realm::{Event, RealmConfig};
use engine::route::RouteTable;
use engine::session::SessionKey;
use net::address::Address;
use server::options::Options;
use server::turn::Server;
use wire::packet::{self, PacketKind};

/// Longer than anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Game {
    server: Server,
    address: SocketAddr,
    logs: Vec<UpLog>,
    answered: u64,
    large: Vec<u8>,
    /// Requests of clients that do not take their answers, who are not read meanwhile; as Python's side keeps them.
    waiting: BTreeMap<u64, VecDeque<Asked>>,
    /// Bytes of answers on their way to one client, beyond which its further requests wait.
    answers_bytes_max: u32,
}

struct Asked {
    link: LinkId,
    id: u32,
    route: u32,
    body: Vec<u8>,
}

impl Game {
    fn new(io_threads: u8, change: impl FnOnce(&mut Options, &mut LinkConfig)) -> Self {
        let mut routes = RouteTable::new();
        routes.intern("echo");
        routes.intern("large");
        let mut link = LinkConfig { routes: Arc::new(routes), ..LinkConfig::default() };
        let mut options = Options {
            addresses: vec![Address::Tcp("127.0.0.1:0".parse().unwrap())],
            tls: None,
            io_threads,
            spin: false,
            connections_max: 0,
            connections_per_address_max: 0,
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
        let Address::Tcp(address) = addresses[0] else { panic!("not TCP") };
        server.start().unwrap();
        Self {
            server,
            address,
            logs: Vec::new(),
            answered: 0,
            large: vec![7; 4_001],
            waiting: BTreeMap::new(),
            answers_bytes_max: 64 * 1024,
        }
    }

    /// One turn; it waits 5 ms at most, for the test to look at its clients.
    fn turn(&mut self) {
        self.server.flush(false);
        self.server.wait(Some(net::sys::monotonic_now() + 5_000_000)).unwrap();
        while self.part() {}
    }

    /// What one read brought. Whether there is more.
    fn part(&mut self) -> bool {
        let mut logs = std::mem::take(&mut self.logs);
        let more = self.server.read(&mut logs);
        let now = self.server.now();
        for log in &logs {
            for up in &log.events {
                match *up {
                    Up::Request { link, id, route, body } => {
                        let body = log.bytes(body).to_vec();
                        if let Some(from) = self.server.realm.admit(now, link, Some(id), body.len()) {
                            self.ask(from.session, Asked { link, id, route: route.0, body });
                        }
                    }
                    _ => self.server.realm.handle_up(now, up, log),
                }
                let realm = &mut self.server.realm;
                while let Some(event) = realm.poll_event() {
                    if let Event::Authenticate { session, .. } = event {
                        realm.accept(now, session, None).unwrap();
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

    /// Answers, or has the request wait behind others of its session.
    fn ask(&mut self, key: SessionKey, asked: Asked) {
        let waiting = self.waiting.entry(key.to_bits()).or_default();
        waiting.push_back(asked);
        if waiting.len() == 1 && !self.go_on(key) {
            self.server.realm.pause(key);
        }
    }

    /// Answers as many as may be answered now. Whether none waits any more.
    fn go_on(&mut self, key: SessionKey) -> bool {
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
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> usize {
        let began = Instant::now();
        let mut turns = 0;
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "what was waited for did not happen");
            self.turn();
            turns += 1;
        }
        turns
    }

    fn closed(&self, why: Close) -> u64 {
        self.server.realm.stats().closed(why)
    }

    fn connect(&mut self) -> Client {
        let mut client = Client::new(self.address);
        client.send(&packet(PacketKind::Handshake, b"{\"sys\":{},\"user\":{}}"));
        client.send(&packet(PacketKind::HandshakeAck, b""));
        self.until(|_| client.packet(PacketKind::Heartbeat).is_some());
        client
    }

    /// Everybody goes; nothing may be left.
    fn end(mut self) {
        self.server.stop_listening();
        self.server.realm.shutdown(self.server.now(), "bye");
        self.server.flush(false);
        self.server.close();
        // Those that linger, for the kick to arrive, are the reactor's alone.
        assert_eq!(self.server.pool().stats().out, 0);
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    ended: bool,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new(), ended: false }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn receive(&mut self) {
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
    fn packet(&mut self, kind: PacketKind) -> Option<Vec<u8>> {
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

    fn is_ended(&mut self) -> bool {
        self.receive();
        self.ended
    }
}

fn packet(kind: PacketKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet::encode(kind, body, &mut bytes);
    bytes
}

fn request(id: u8, route: &str, body: &[u8]) -> Vec<u8> {
    assert!(id < 128);
    packet(PacketKind::Data, &[&[0, id, route.len() as u8], route.as_bytes(), body].concat())
}

fn on_both(test: fn(u8)) {
    [0, 2].into_iter().for_each(test);
}

#[test]
fn slow_readers_do_not_delay_a_good_client() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, _| {});
        let mut good = game.connect();
        let mut slow: Vec<_> = (0..200).map(|_| game.connect()).collect();
        let pipelined: Vec<u8> = (0..100).flat_map(|id| request(id, "large", b"")).collect();
        for (round, id) in (1..=20).enumerate() {
            for client in &mut slow {
                let _ = client.stream.write(&pipelined); // as much as it takes; they read nothing
            }
            let before = game.answered;
            good.send(&request(id, "echo", b"good"));
            let turns = game.until(|_| good.packet(PacketKind::Data).is_some());
            // Inline a turn is all of it. With threads an empty turn may pass while a thread works: what counts is
            // that nobody had more than some budgets' worth of answers before.
            if threads == 0 {
                assert!(turns <= 4, "round {round}: {turns} turns");
            }
            assert!(game.answered - before <= 3 * 128 * 201, "round {round}");
        }
        // They wait, unread, with what their sockets took and a bounded queue; nobody had to be closed.
        assert_eq!(game.closed(Close::Slow), 0);
        assert_eq!(game.server.connections(), 201);
        game.end();
    });
}

#[test]
fn what_a_closing_client_has_not_taken_yet_still_arrives() {
    on_both(|threads| {
        let mut game = Game::new(threads, |options, _| {
            options.queue_bytes_max = 64 << 20;
            options.realm.queue_bytes_max = 64 << 20;
        });
        game.large = vec![7; 400_001];
        game.answers_bytes_max = u32::MAX;
        let mut client = game.connect();
        // More than the sockets' buffers hold, so that the queue is blocked when the end comes.
        let asked: Vec<u8> = (0..120).flat_map(|id| request(id, "large", b"")).collect();
        client.send(&asked);
        game.until(|game| game.answered == 120);
        let key = game.server.realm.sessions().next().unwrap();
        game.server.realm.close(game.server.now(), key);
        let mut got = 0;
        game.until(|_| {
            while client.packet(PacketKind::Data).is_some() {
                got += 1;
            }
            client.is_ended()
        });
        while client.packet(PacketKind::Data).is_some() {
            got += 1;
        }
        assert_eq!(got, 120);
        game.until(|game| game.closed(Close::Closed) == 1);
        game.end();
    });
}

#[test]
fn a_flood_of_one_puts_off_nobodys_heartbeat_or_deadline() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, link| {
            link.heartbeat = 50_000_000;
            link.missed_max = 1000;
            link.handshake_timeout = 200_000_000;
        });
        let mut floods: Vec<_> = (0..6).map(|_| game.connect()).collect();
        let mut good = game.connect();
        let mut silent = Client::new(game.address);
        let heartbeats = packet(PacketKind::Heartbeat, b"").repeat(16 << 10);
        let (mut beats, mut turns) = (0, 0);
        game.until(|_| {
            // There is always more of it than one pass takes; and they are not in step, so that never all are done.
            turns += 1;
            for flood in floods.iter_mut().take(turns / 20) {
                let _ = flood.stream.write(&heartbeats);
            }
            beats += usize::from(good.packet(PacketKind::Heartbeat).is_some());
            beats >= 3 && turns > 400 && silent.is_ended()
        });
        assert_eq!(game.closed(Close::HandshakeTimeout), 1);
        game.end();
    });
}

#[test]
fn who_has_not_said_what_it_speaks_does_not_hold_the_shutdown() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, link| link.handshake_timeout = 3600 * 1_000_000_000);
        let mut silent = Client::new(game.address);
        let mut half = Client::new(game.address);
        half.send(b"GET / HTTP/1.1\r\nHost");
        let mut player = game.connect();
        game.until(|game| game.server.connections() == 3);
        player.send(&request(1, "echo", b"x"));
        game.until(|_| player.packet(PacketKind::Data).is_some());
        game.server.stop_listening();
        game.until(|game| silent.is_ended() && half.is_ended() && game.closed(Close::Shutdown) == 2);
        assert_eq!(game.server.connections(), 1, "who plays is the realm's business");
        player.send(&request(2, "echo", b"y"));
        game.until(|_| player.packet(PacketKind::Data).is_some());
        game.end();
    });
}

#[test]
fn a_panic_while_a_wish_is_done_ends_that_link_alone() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, _| {});
        let (mut first, mut second) = (game.connect(), game.connect());
        let links: Vec<_> = game.server.realm.sessions().collect();
        let link = game.server.realm.session(links[0]).unwrap().link().unwrap();
        // No realm says this: a route of 300 bytes has no encoding.
        let downs: &mut DownLog = game.server.realm.downs(link.reactor());
        let route = downs.store(&[b'a'; 300]);
        downs.push(engine::event::Down::Push {
            link,
            class: engine::event::Class::Reliable,
            key: 0,
            route,
            body: route,
        });
        game.until(|game| game.closed(Close::Panic) == 1);
        game.until(|_| first.is_ended() || second.is_ended());
        let mut other = if first.is_ended() { second } else { first };
        other.send(&request(1, "echo", b"still here"));
        game.until(|_| other.packet(PacketKind::Data).is_some());
        game.end();
    });
}

#[test]
fn while_the_logic_thread_rests_threads_stop_reading_and_nothing_is_lost() {
    let mut game = Game::new(2, |_, _| {});
    let mut clients: Vec<_> = (0..8).map(|_| game.connect()).collect();
    // The logic thread takes no turn while the threads' queues fill: each write is a burst, so a log.
    for round in 0..40 {
        for client in &mut clients {
            client.send(&request(round, "echo", b"kept"));
        }
    }
    let mut got = vec![0; clients.len()];
    game.until(|_| {
        for (client, got) in clients.iter_mut().zip(&mut got) {
            while let Some(body) = client.packet(PacketKind::Data) {
                assert_eq!(body, [&[4, *got as u8][..], b"kept"].concat(), "in order");
                *got += 1;
            }
        }
        got.iter().all(|&got| got == 40)
    });
    game.end();
}

#[test]
fn caps_are_kept_across_threads() {
    on_both(|threads| {
        let mut game = Game::new(threads, |options, _| options.connections_max = 2);
        let (mut first, _second) = (game.connect(), game.connect());
        let mut third = Client::new(game.address);
        game.until(|_| third.is_ended());
        first.stream.shutdown(Shutdown::Both).unwrap();
        game.until(|game| game.server.connections() == 1);
        game.connect();
        first.ended = true;
        game.end();
    });
}
