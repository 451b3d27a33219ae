//! Any order of events, against a plain model of what a link and its session are: the states, the story that the game
//! is told, each end exactly once. And any bytes at all.

mod common;

use common::{Authenticate, End, HANDSHAKE, START, Server, Setup, hex, secs};
use engine::event::{Class, Close, LinkId, Nanos, Up};
use engine::link::{Ending, Greeting, Link, LinkConfig, Phase};
use engine::realm::SessionKey;
use engine::session::State;
use proptest::collection::vec;
use proptest::prelude::*;
use wire::handshake::ServerAnswer;
use wire::websocket::frame::{OpCode, encode_frame};
use wire::websocket::upgrade;

#[derive(Clone, Debug)]
enum Op {
    /// A client's packet; its bytes come in pieces with this much time between them.
    Packet(Kind, Vec<usize>, u64),
    Advance(u64),
    Accept,
    Refuse,
    Push,
    Kick,
    Close,
    Pause,
    Resume,
    Eof,
    Reset,
    /// The client comes back with a new link, and goes on.
    Return,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Handshake,
    Ack,
    Heartbeat,
    Data,
    Unknown,
}

impl Kind {
    fn bytes(self) -> Vec<u8> {
        match self {
            Kind::Handshake => hello("{}"),
            Kind::Ack => hex("02 00 00 00"),
            Kind::Heartbeat => hex("03 00 00 00"),
            Kind::Data => hex("04 00 00 06 02 04 6e 6f 74 65"),
            Kind::Unknown => hex("09 00 00 00"),
        }
    }
}

/// The handshake of a client that can come back.
fn hello(resume: &str) -> Vec<u8> {
    let json = format!("{{\"sys\":{{\"gs\":{{\"resume\":{resume}}}}}}}");
    [&[1, 0, 0, json.len() as u8][..], json.as_bytes()].concat()
}

/// What should be.
struct Model {
    now: Nanos,
    phase: Phase,
    /// Of the handshake or the acknowledgement.
    link_due: Nanos,
    heard: Nanos,
    is_silent: bool,
    /// Of the session: it outlives its link.
    is_paused: bool,
    inbox: Vec<u8>,
    why: Option<Close>,
    /// `None`: there is no session yet, or no more.
    session: Option<State>,
    has_joined: bool,
    /// It was answered once: the client may have a token.
    can_return: bool,
    /// Of `authenticate`, or of the grace.
    realm_due: Nanos,
    story: Vec<&'static str>,
    notes: usize,
    pushes: usize,
    /// Pushes that wait for the client.
    kept: usize,
}

const HANDSHAKE_TIMEOUT: Nanos = secs_const(5);
const AUTH_TIMEOUT: Nanos = secs_const(10);
const GRACE: Nanos = secs_const(20);
const STALE: Nanos = secs_const(75) / 2;
const SILENCE_MAX: Nanos = secs_const(45);

const fn secs_const(seconds: u64) -> Nanos {
    seconds * 1_000_000_000
}

/// The realm's timers fire at the end of a slot of 2^20 nanoseconds.
fn slot_end(deadline: Nanos) -> Nanos {
    ((deadline >> 20) + 1) << 20
}

impl Model {
    fn new() -> Self {
        Self {
            now: START,
            phase: Phase::Detect,
            link_due: START + HANDSHAKE_TIMEOUT,
            heard: START,
            is_silent: false,
            is_paused: false,
            inbox: Vec::new(),
            why: None,
            session: None,
            has_joined: false,
            can_return: false,
            realm_due: Nanos::MAX,
            story: Vec::new(),
            notes: 0,
            pushes: 0,
            kept: 0,
        }
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// What comes behind the acknowledgement waits.
    fn is_held(&self) -> bool {
        self.is_paused && self.phase == Phase::Ready
    }

    fn bytes(&mut self, bytes: &[u8]) {
        if self.is_over() || bytes.is_empty() {
            return;
        }
        self.inbox.extend_from_slice(bytes);
        self.read();
    }

    /// Takes what has come, unless it must wait.
    fn read(&mut self) {
        if self.is_held() || self.inbox.is_empty() {
            return;
        }
        if self.phase == Phase::Detect {
            if self.inbox[0] != 1 {
                return self.link_ends(Close::UnknownProtocol);
            }
            (self.phase, self.session) = (Phase::Handshake, Some(State::Connecting));
        }
        self.heard = self.now;
        if std::mem::take(&mut self.is_silent) {
            self.session = Some(State::Active);
            self.story.push("resumed");
        }
        while self.phase != Phase::Waiting && !self.is_held() && !self.is_over() && self.inbox.len() >= 4 {
            let total = 4 + usize::from(self.inbox[3]);
            if self.inbox[0] == 9 {
                return self.link_ends(Close::PacketType);
            }
            if self.inbox.len() < total {
                return;
            }
            let packet: Vec<u8> = self.inbox.drain(..total).collect();
            self.packet(packet[0]);
        }
    }

    fn packet(&mut self, kind: u8) {
        match (kind, self.phase) {
            (3, _) => {}
            (1, Phase::Handshake) => {
                (self.phase, self.link_due) = (Phase::Waiting, Nanos::MAX);
                self.realm_due = slot_end(self.now + AUTH_TIMEOUT);
                self.story.push("knocked");
            }
            (2, Phase::Answered) => {
                (self.phase, self.link_due) = (Phase::Ready, Nanos::MAX);
                self.story.push(if self.has_joined { "resumed" } else { "joined" });
                (self.session, self.has_joined) = (Some(State::Active), true);
                self.pushes += std::mem::take(&mut self.kept);
            }
            (4, Phase::Ready) => self.notes += 1,
            (4, _) => self.link_ends(Close::DataBeforeAck),
            _ => self.link_ends(Close::HandshakeTwice),
        }
    }

    fn link_ends(&mut self, why: Close) {
        if self.is_over() {
            return;
        }
        let was_answered = self.phase == Phase::Answered;
        self.phase = Phase::Closed;
        (self.why, self.link_due, self.is_silent) = (Some(why), Nanos::MAX, false);
        self.inbox.clear();
        let is_lost = match why {
            Close::Reset | Close::Silent => true,
            Close::Left => true,
            Close::HandshakeTimeout => was_answered,
            _ => false,
        };
        if !self.can_return || !is_lost {
            return self.session_ends();
        }
        if self.session.is_some() {
            if self.session == Some(State::Active) {
                self.story.push("dropped");
            }
            (self.session, self.realm_due) = (Some(State::Pending), slot_end(self.now + GRACE));
        }
    }

    fn session_ends(&mut self) {
        (self.realm_due, self.kept) = (Nanos::MAX, 0);
        if self.session.take().is_some() {
            self.story.push(if self.has_joined { "left" } else { "gone" });
        }
    }

    /// The game ends the session, and so its link.
    fn ended_by_game(&mut self, why: Close) {
        if self.session.is_some() {
            self.session_ends();
            self.link_ends(why);
        }
    }

    fn answered(&mut self) {
        (self.phase, self.link_due) = (Phase::Answered, self.now + HANDSHAKE_TIMEOUT);
        (self.realm_due, self.can_return) = (Nanos::MAX, true);
        self.read();
    }

    fn returned(&mut self) {
        (self.why, self.inbox) = (None, Vec::new());
        self.answered();
    }

    fn advance(&mut self, time: Nanos) {
        let end = self.now + time;
        loop {
            let silence = match self.phase {
                Phase::Ready if !self.is_paused && self.is_silent => self.heard + SILENCE_MAX,
                Phase::Ready if !self.is_paused => self.heard + STALE,
                _ => Nanos::MAX,
            };
            let next = silence.min(self.link_due).min(self.realm_due);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            if next == self.link_due {
                self.link_ends(Close::HandshakeTimeout);
            } else if next == silence && self.is_silent {
                self.link_ends(Close::Silent);
            } else if next == silence {
                self.is_silent = true;
                self.session = Some(State::Pending);
                self.story.push("dropped");
            } else {
                self.session_ends();
                self.link_ends(Close::AuthTimeout);
            }
        }
    }
}

/// The real ones.
struct Real {
    server: Server,
    link: LinkId,
    session: Option<SessionKey>,
    said: Vec<u8>,
}

impl Real {
    fn new() -> Self {
        let mut setup = Setup { authenticate: Authenticate::Wait, ..Setup::default() };
        setup.realm.resume_grace = GRACE;
        let mut server = Server::new(&setup);
        let link = server.connect();
        Self { server, link, session: None, said: Vec::new() }
    }

    fn run(&mut self, op: &Op, model: &mut Model) {
        let now = self.server.now;
        match op {
            Op::Packet(kind, cuts, pause) => {
                let bytes = kind.bytes();
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
                cuts.extend([0, bytes.len()]);
                cuts.sort_unstable();
                for (place, ends) in cuts.windows(2).enumerate() {
                    if place > 0 {
                        self.server.advance(secs(*pause));
                        model.advance(secs(*pause));
                    }
                    let piece = &bytes[ends[0]..ends[1]];
                    let sent = self.server.send(self.link, piece);
                    self.said.extend(sent);
                    model.bytes(piece);
                }
            }
            Op::Advance(seconds) => {
                self.server.advance(secs(*seconds));
                model.advance(secs(*seconds));
            }
            Op::Accept => {
                let is_accepted =
                    self.session().is_some_and(|session| self.server.realm.accept(session, None).is_ok());
                assert_eq!(is_accepted, model.phase == Phase::Waiting && model.session.is_some());
                if is_accepted {
                    model.answered();
                }
            }
            Op::Refuse => {
                if let Some(session) = self.session() {
                    self.server.realm.refuse(session, "no", "no");
                }
                if model.phase == Phase::Waiting {
                    model.ended_by_game(Close::Refused);
                }
            }
            Op::Push => {
                let is_sent = self.session().is_some_and(|session| {
                    self.server.realm.push(session, Class::Reliable, 0, "a", b"{}").is_ok()
                });
                assert_eq!(is_sent, model.session.is_some() && model.has_joined);
                match model.phase {
                    Phase::Ready => model.pushes += 1,
                    _ => model.kept += usize::from(is_sent),
                }
            }
            Op::Kick => {
                if let Some(session) = self.session() {
                    self.server.realm.kick(session, "go");
                }
                model.ended_by_game(Close::Kicked);
            }
            Op::Close => {
                if let Some(session) = self.session() {
                    self.server.realm.close(session);
                }
                model.ended_by_game(Close::Closed);
            }
            Op::Pause | Op::Resume if model.session.is_none() || !model.has_joined => {}
            Op::Pause => {
                let session = self.session().unwrap();
                self.server.realm.pause(session);
                model.is_paused = true;
            }
            Op::Resume => {
                let session = self.session().unwrap();
                self.server.realm.resume(session);
                if std::mem::take(&mut model.is_paused) {
                    model.heard = model.now;
                    model.read();
                }
            }
            Op::Eof if self.server.end(self.link).link.held() => {} // nobody reads it
            Op::Eof => {
                let end = self.server.end(self.link);
                end.link.handle_eof(now, &mut end.ups);
                model.link_ends(Close::Left);
            }
            Op::Reset => {
                let end = self.server.end(self.link);
                end.link.handle_end(now, Close::Reset, &mut end.ups);
                model.link_ends(Close::Reset);
            }
            Op::Return if model.is_over() && model.session == Some(State::Pending) => {
                self.link = self.server.connect();
                let token = tokens(&self.said).pop().unwrap();
                let seen = pushes(&self.said);
                let hello = hello(&format!("{{\"token\":\"{token}\",\"seen\":{seen}}}"));
                let sent = self.server.send(self.link, &hello);
                self.said.extend(sent);
                model.returned();
            }
            Op::Return => {}
        }
        self.server.settle();
        let sent = self.server.take(self.link);
        self.said.extend(sent);
    }

    /// The one session of the story, once there is one.
    fn session(&mut self) -> Option<SessionKey> {
        self.session = self.session.or_else(|| self.server.realm.session_of(self.link));
        self.session
    }

    fn check(&mut self, model: &Model) {
        assert_eq!(self.server.story(), model.story.join(" "));
        assert_eq!(self.server.closed(self.link), model.why);
        let phase = match self.server.end(self.link).link.phase() {
            Phase::Closing => Phase::Closed,
            phase => phase,
        };
        assert_eq!(phase, model.phase);
        let session = self.session().and_then(|session| self.server.realm.session(session));
        assert_eq!(session.map(|session| session.state()), model.session);
        assert_eq!(self.server.got.len(), model.notes);
        let owed = session.map_or(0, |session| session.queued_bytes());
        assert!(owed as usize <= 24 * model.pushes);
    }
}

fn op() -> impl Strategy<Value = Op> {
    use Kind::*;
    let kind = prop_oneof![
        5 => Just(Handshake), 6 => Just(Ack), 4 => Just(Heartbeat), 4 => Just(Data), 1 => Just(Unknown)
    ];
    let pause = prop_oneof![8 => Just(0u64), 1 => 0u64..40];
    prop_oneof![
        12 => (kind, vec(0usize..100, 0..3), pause).prop_map(|(kind, cuts, pause)| Op::Packet(kind, cuts, pause)),
        6 => prop_oneof![0u64..4, 0u64..50].prop_map(Op::Advance),
        6 => Just(Op::Accept),
        3 => Just(Op::Push),
        3 => Just(Op::Return),
        2 => Just(Op::Resume),
        1 => Just(Op::Pause),
        1 => prop_oneof![Just(Op::Kick), Just(Op::Close), Just(Op::Refuse), Just(Op::Eof)],
        1 => Just(Op::Reset),
    ]
}

/// Most runs begin with a session that is up, or one that is on its way back: few orders get so far.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let join = |kind| Op::Packet(kind, Vec::new(), 0);
    (0usize..=5, vec(op(), 1..60)).prop_map(move |(begun, ops)| {
        let begin = [join(Kind::Handshake), Op::Accept, join(Kind::Ack), Op::Reset, Op::Return];
        begin.into_iter().take(begun).chain(ops).collect()
    })
}

fn packets(said: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut rest, mut packets) = (said, Vec::new());
    while let [kind, 0, high, low, behind @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        packets.push((*kind, &behind[..len]));
        rest = &behind[len..];
    }
    assert_eq!(rest, b"", "whole packets");
    packets
}

/// But for those of how much was seen.
fn pushes(said: &[u8]) -> usize {
    packets(said).iter().filter(|(kind, body)| *kind == 4 && body[0] == 6 && body[2] != b'$').count()
}

fn tokens(said: &[u8]) -> Vec<String> {
    let answers = packets(said).into_iter().filter(|(kind, _)| *kind == 1);
    answers.filter_map(|(_, body)| Some(ServerAnswer::parse(body).unwrap().resume?.token)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_does_what_the_model_says(ops in ops()) {
        let (mut real, mut model) = (Real::new(), Model::new());
        for op in &ops {
            real.run(op, &mut model);
            real.check(&model);
        }
        // What was pushed before a kick in the same breath was sent; nothing was lost, nothing came twice.
        prop_assert_eq!(pushes(&real.said), model.pushes);
        // Whatever state it is in: it ends, once, and leaves nothing behind.
        real.run(&Op::Reset, &mut model);
        real.run(&Op::Advance(100), &mut model);
        real.check(&model);
        let story = real.server.story();
        prop_assert_eq!(story.matches("joined").count(), story.matches("left").count());
        prop_assert!(story.matches("left").count() <= 1);
        prop_assert_eq!((real.server.realm.sessions().count(), real.server.realm.next_deadline()), (0, None));
    }
}

// -- any bytes -------------------------------------------------------------------------------------------------------

/// Bytes that begin well and go wrong somewhere, or not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let frame = |payload: &[u8]| {
        let mut out = Vec::new();
        encode_frame(OpCode::Binary, true, Some([1, 2, 3, 4]), payload, &mut out);
        out
    };
    let good = prop_oneof![
        Just(HANDSHAKE.concat()),
        Just(hex("02 00 00 00  03 00 00 00")),
        Just(hex("04 00 00 09 00 01 04 65 63 68 6f 7b 7d")),
        Just(upgrade::request("a", "/", None, [0; 16]).unwrap()),
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec()),
        Just([&[1, 0, 0, 12][..], br#"{"code":200}"#].concat()),
        Just(frame(&HANDSHAKE.concat())),
        Just(frame(&hex("02 00 00 00"))),
        Just(frame(&hex("04 00 00 09 00 01 04 65 63 68 6f 7b 7d 04"))),
        Just(hex("88 80 00 00 00 00")),
        vec(any::<u8>(), 0..30),
    ];
    let flip = prop_oneof![4 => Just(None), 1 => any::<(prop::sample::Index, u8)>().prop_map(Some)];
    (vec(good, 1..12), flip).prop_map(|(parts, flip)| {
        let mut bytes = parts.concat();
        if let Some((place, value)) = flip
            && !bytes.is_empty()
        {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes
    })
}

/// Feeds bytes in pieces; the end is told once, and nothing after it.
fn survive(end: &mut End, bytes: &[u8], pieces: &[usize], settle: &mut dyn FnMut(&mut End)) -> Vec<Up> {
    let (mut rest, mut pieces) = (bytes, pieces.iter().cycle());
    let mut ups = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
        rest = behind;
        end.feed(START, piece);
        settle(end);
        ups.append(&mut end.ups.events);
    }
    end.link.handle_end(START, Close::Reset, &mut end.ups);
    ups.append(&mut end.ups.events);
    assert_eq!(end.link.ending(), Ending::Now);
    ups
}

fn ends_once(ups: &[Up]) {
    let closed = ups.iter().filter(|up| matches!(up, Up::Closed { .. })).count();
    assert!(closed == 1 && matches!(ups.last(), Some(Up::Closed { .. })), "{ups:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_at_all_end_a_server_link_once(bytes in bytes(), pieces in vec(1usize..50, 1..5), budget in 1usize..4) {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        let mut end = server.ends.remove(&link).unwrap();
        end.budget = budget;
        let mut all = Vec::new();
        // The link lies outside of the server while it is fed, and inside while the realm answers.
        let mut settle = |end: &mut End| {
            let fresh = LinkConfig::default().into();
            let spare = End::new(Link::server(START, link, fresh, ""));
            server.ends.insert(link, std::mem::replace(end, spare));
            server.settle();
            *end = server.ends.remove(&link).unwrap();
            all = server.ups.clone();
        };
        let rest = survive(&mut end, &bytes, &pieces, &mut settle);
        all.extend(rest);
        ends_once(&all);
    }

    #[test]
    fn any_bytes_at_all_end_a_client_link_once(bytes in bytes(), pieces in vec(1usize..50, 1..5), websocket: bool) {
        let upgrade = engine::link::ClientUpgrade { host: "a".to_owned(), path: "/".to_owned(), key: [0; 16] };
        let websocket = websocket.then_some(upgrade);
        let greeting = Greeting { handshake: b"{}".to_vec(), websocket, mask_seed: 1 };
        let link = Link::client(START, LinkId::from_bits(1), LinkConfig::default().into(), greeting);
        let mut end = End::new(link);
        let ups = survive(&mut end, &bytes, &pieces, &mut |_| {});
        ends_once(&ups);
    }
}
