//! One connection, without its socket.
//!
//! Given bytes and the time, says what the client meant and what to send. Never reads a clock, never waits.
//!
//! ```text
//! server   (Proxy) -> Detect -> (Head) -> Handshake -> Waiting -> Answered -> Ready -> (Ended) -> Closing -> Closed
//!                       `-> Http -----------------------------------------------------^
//! client   (Upgrading) -> Greeting -> Ready -> Closing -> Closed
//! ```
//! The time that a link is given is one that stands still while nobody reads: a client is judged silent only by
//! a server that listens.

mod leftover;
mod messages;
mod receive;
mod send;

use std::net::SocketAddr;
use std::sync::Arc;

use wire::message::{InflateError, MessageError};
use wire::packet::PacketError;
use wire::proxy::ProxyError;
use wire::websocket::deflate::Deflate;
use wire::websocket::frame::{CLOSE_POLICY, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG, Fragments, Role, WsError};
use wire::websocket::upgrade::{self, AnswerError, RequestError, UpgradeError};

use self::leftover::Leftover;
use crate::event::{Class, Close, Down, DownLog, LinkId, Nanos, Up, UpLog};
use crate::rate::{Bucket, SharedBucket};

pub use crate::limits::{LinkConfig, Origins, Proxies};
pub use crate::outbox::{Full, Outbox, SharedPush};

/// One connection. Idle it is these few fields and nothing else.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    config: Arc<LinkConfig>,
    last_heard: Nanos,
    /// The phase's deadline; once ready, the next heartbeat.
    due: Nanos,
    bytes_in: u64,
    bytes_out: u64,
    /// Reliable bytes that the realm charged and was not told to have left.
    charged: u32,
    /// Requests that the realm was told of and has not answered.
    owed: u32,
    /// Codes 1 to this one were given to the client.
    codes: u16,
    phase: Phase,
    role: Role,
    /// Which frame may come next, if it speaks WebSocket.
    websocket: Option<Fragments>,
    /// The client counts messages: those that may be dropped are marked.
    counts: bool,
    /// The realm reads no more from it, once it is let in.
    is_paused: bool,
    /// It has bytes that must wait for the handshake's answer.
    waits: bool,
    is_silent: bool,
    deadline_moved: bool,
    /// The client sent something compressed: so it can inflate.
    compresses: bool,
    /// Charges are told exactly at the next chance.
    tells_charge: bool,
    is_congested: bool,
    /// A snapshot is queued whose leaving was not told: the one of this number.
    snapshot_waits: bool,
    snapshot: u16,
    /// Of [`LinkConfig::messages`].
    bucket: Bucket,
    extras: Option<Box<Extras>>,
    rare: Option<Box<Rare>>,
}

/// What not every connection has, for as long as it lives.
#[derive(Debug, Default)]
struct Extras {
    /// By the number of the limit in the route table.
    routes: Vec<Bucket>,
    address: Option<SharedBucket>,
    /// Its client may compress.
    deflate: Option<Deflate>,
}

/// What a connection has only in its first moments, over HTTP, in client role, or while a packet spans WebSocket frames.
#[derive(Debug, Default)]
struct Rare {
    address: Box<str>,
    is_tls: bool,
    /// It is a proxy's.
    is_proxy: bool,
    /// A proxy has said that its client is here, and nobody was told yet.
    moved: Option<SocketAddr>,
    /// HTTP bytes are queued whose leaving is to be told.
    http_owes: bool,
    http_ended: bool,
    /// The rest of WebSocket frames: a packet that spans them, or packets beyond the budget.
    joined: Leftover,
    /// Of an HTTP head so much was seen to have no end.
    head_seen: usize,
    client: Option<Client>,
}

/// What a link has in client role.
#[derive(Debug)]
struct Client {
    greeting: Greeting,
    /// As the server told it; `Nanos::MAX`: it wants none and sends none.
    heartbeat: Nanos,
    /// Route names for the server's codes, by code.
    dict: Vec<(String, u16)>,
    masks: u64,
    is_kicked: bool,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A proxy's word for who stands behind it is awaited.
    Proxy,
    /// Nothing told the protocol yet.
    Detect,
    /// An HTTP head is arriving.
    Head,
    /// Plain HTTP.
    Http,
    /// Packets: the client's handshake is awaited.
    Handshake,
    /// The realm's answer is awaited.
    Waiting,
    /// The client's acknowledgement is awaited.
    Answered,
    /// Client role: the answer to our HTTP request is awaited.
    Upgrading,
    /// Client role: the answer to our handshake is awaited.
    Greeting,
    /// Data flows.
    Ready,
    /// The client sends no more, and is still owed answers.
    Ended,
    /// What is queued is being sent; what comes is thrown away.
    Closing,
    /// Over.
    Closed,
}

/// How a client begins.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The handshake's JSON.
    pub handshake: Vec<u8>,
    /// Over WebSocket; else packets straight on the stream.
    pub websocket: Option<ClientUpgrade>,
    /// Anything random: frames are masked with what follows from it.
    pub mask_seed: u64,
}

/// A client's upgrade to WebSocket.
#[derive(Clone, Debug)]
pub struct ClientUpgrade {
    /// `game.example:7777`
    pub host: String,
    /// `/`
    pub path: String,
    /// Random.
    pub key: [u8; 16],
}

/// What one connection may bring at a time, and when that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Packets and frames.
    pub budget: usize,
    /// The time by which limits count: it goes on also while the server does not listen.
    pub at: Nanos,
}

/// What [`Link::handle_bytes`] did with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// So many bytes are done with.
    pub consumed: usize,
    /// When to call again.
    pub next: Next,
}

/// When to call [`Link::handle_bytes`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When the rest and what has come behind it are at least so many bytes, at least 1.
    Bytes(usize),
    /// With the rest, in the next pass: the budget is used up.
    Again,
    /// With the rest, once [`Link::held`] says no more: nothing is read until then.
    Held,
}

/// What is to become of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It stays.
    No,
    /// Close it when what is queued has left.
    Drain,
    /// Close it.
    Now,
}

impl Link {
    /// A client that has just connected from `address`.
    pub fn server(now: Nanos, id: LinkId, config: Arc<LinkConfig>, address: &str) -> Self {
        let due = now.saturating_add(config.handshake_timeout);
        let is_proxy = config.proxies.has(address);
        let phase = if is_proxy && config.proxies.protocol { Phase::Proxy } else { Phase::Detect };
        let rare = Rare { address: address.into(), is_proxy, ..Rare::default() };
        Self::new(now, id, config, Role::Server, phase, due, rare)
    }

    /// Our own connection to a server: see [`Link::start`].
    pub fn client(now: Nanos, id: LinkId, config: Arc<LinkConfig>, greeting: Greeting) -> Self {
        let due = now.saturating_add(config.handshake_timeout);
        let phase = if greeting.websocket.is_some() { Phase::Upgrading } else { Phase::Greeting };
        let client = Client {
            heartbeat: config.heartbeat,
            dict: Vec::new(),
            masks: greeting.mask_seed,
            is_kicked: false,
            greeting,
        };
        let rare = Rare { client: Some(client), ..Rare::default() };
        Self::new(now, id, config, Role::Client, phase, due, rare)
    }

    fn new(
        now: Nanos,
        id: LinkId,
        config: Arc<LinkConfig>,
        role: Role,
        phase: Phase,
        due: Nanos,
        rare: Rare,
    ) -> Self {
        Self {
            id,
            config,
            last_heard: now,
            due,
            bytes_in: 0,
            bytes_out: 0,
            charged: 0,
            owed: 0,
            codes: 0,
            phase,
            role,
            websocket: None,
            counts: false,
            is_paused: false,
            waits: false,
            is_silent: false,
            deadline_moved: false,
            compresses: false,
            tells_charge: false,
            is_congested: false,
            snapshot_waits: false,
            snapshot: 0,
            bucket: Bucket::default(),
            extras: None,
            rare: Some(Box::new(rare)),
        }
    }

    // -- what happens to it ------------------------------------------------------------------------------------------

    /// Client role: the first bytes, once the socket is connected.
    pub fn start(&mut self, out: &mut impl Outbox) -> Result<(), StartError> {
        let Some(client) = self.client_half() else { return Err(StartError::NoClient) };
        match &client.greeting.websocket {
            Some(ask) => {
                let request = upgrade::request(&ask.host, &ask.path, None, ask.key)?;
                self.send_plain(&request, out)?;
            }
            None => self.greet(out)?,
        }
        Ok(())
    }

    /// It shares a bucket with all links of its address, for [`LinkConfig::address_messages`].
    pub fn share_bucket(&mut self, bucket: SharedBucket) {
        self.extras.get_or_insert_default().address = Some(bucket);
    }

    /// TLS has begun under this link.
    pub fn mark_tls(&mut self) {
        self.rare_half().is_tls = true;
    }

    /// Other settings, from now on.
    pub fn set_config(&mut self, config: Arc<LinkConfig>) {
        self.config = config;
    }

    /// Takes bytes: all that are unconsumed, the rest of the last call first. They may be changed in place. Without any
    /// bytes, goes on with what the budget of the last call left.
    ///
    /// Each packet or frame costs one of the pass's budget. An error is the link's end: [`Up::Closed`] was pushed, a farewell
    /// is queued where there is one, and [`Link::ending`] says what to do.
    #[inline]
    pub fn handle_bytes(
        &mut self,
        now: Nanos,
        bytes: &mut [u8],
        pass: &mut Pass,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<Taken, Close> {
        if !bytes.is_empty() {
            self.handle_heard(now, ups);
        }
        let result = if self.phase == Phase::Ready && self.websocket.is_none() {
            self.take_packets(now, bytes, pass, ups, out)
        } else {
            self.take(now, bytes, pass, ups, out)
        };
        match result {
            Ok(taken) => {
                self.bytes_in += taken.consumed as u64;
                Ok(taken)
            }
            Err(fault) => Err(self.fail(now, fault, ups, out)),
        }
    }

    /// The peer gave a sign of life that is no bytes for [`Link::handle_bytes`]: the beginning of a packet, or room for
    /// what is queued.
    #[inline]
    pub fn handle_heard(&mut self, now: Nanos, ups: &mut UpLog) {
        self.last_heard = now;
        if self.is_silent {
            // It may be stale again before it would have been given up.
            (self.is_silent, self.deadline_moved) = (false, true);
            ups.push(Up::Heard { link: self.id });
        }
    }

    /// Does what the realm asks; broadcasts go to [`Link::handle_shared`]. An error is the link's end, as ever.
    #[inline]
    pub fn handle_down(
        &mut self,
        now: Nanos,
        down: &Down,
        log: &DownLog,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Close> {
        let result = if let Down::Answers { packets, count, .. } = *down {
            self.answer(now, log.bytes(packets), count, ups, out)
        } else {
            self.obey(now, down, log, ups, out)
        };
        result.map_err(|fault| self.fail(now, fault, ups, out))
    }

    /// Queues a push that was encoded for many. An error is the link's end, as ever.
    #[inline]
    pub fn handle_shared(
        &mut self,
        now: Nanos,
        push: &SharedPush,
        class: Class,
        key: u64,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Close> {
        self.send_shared(push, class, key, out).map_err(|full| self.fail(now, full.into(), ups, out))
    }

    /// So many bytes are still queued after a flush.
    #[inline]
    pub fn handle_sent(&mut self, queued: usize, ups: &mut UpLog) {
        if self.ending() != Ending::No {
            return;
        }
        let gone = self.charged.saturating_sub(queued as u32);
        if gone > self.config.queue_bytes_max.min(CHARGE_TOLD_BYTES) / 4 || self.tells_charge && gone > 0 {
            self.charged -= gone;
            self.tells_charge = false;
            ups.push(Up::Sent { link: self.id, bytes: gone });
        }
        let bound =
            if self.is_congested { self.config.congested_bytes / 4 } else { self.config.congested_bytes };
        if (queued > bound as usize) != self.is_congested && self.is_up() {
            self.is_congested = !self.is_congested;
            ups.push(match self.is_congested {
                true => Up::Congested { link: self.id },
                false => Up::Relieved { link: self.id },
            });
        }
        if self.phase == Phase::Http && queued == 0 && std::mem::take(&mut self.rare_half().http_owes) {
            ups.push(Up::HttpDrained { link: self.id });
        }
    }

    /// Whether [`Link::handle_snapshot_left`] has something to tell.
    #[inline]
    pub fn snapshot_waits(&self) -> bool {
        self.snapshot_waits
    }

    /// After a flush, the snapshot is unsent no more.
    #[inline]
    pub fn handle_snapshot_left(&mut self, ups: &mut UpLog) {
        self.snapshot_waits = false;
        ups.push(Up::SnapshotLeft { link: self.id, number: self.snapshot });
    }

    /// The peer sends no more.
    pub fn handle_eof(&mut self, now: Nanos, ups: &mut UpLog) {
        if self.phase == Phase::Http {
            if !std::mem::replace(&mut self.rare_half().http_ended, true) {
                ups.push(Up::HttpEnded { link: self.id });
            }
            return;
        }
        // Behind a WebSocket's close frame stands nothing, and without one its end is no good one.
        if self.phase == Phase::Ready && self.owed > 0 && self.websocket.is_none() {
            return self.enter(Phase::Ended, now.saturating_add(self.config.drain_timeout));
        }
        let is_kicked = self.client_half().is_some_and(|client| client.is_kicked);
        let why = if is_kicked { Close::Kicked } else { Close::Left };
        // Answers to what it asked before may still be queued.
        self.begin_closing(now, why, ups);
    }

    /// The link is over at once: its socket failed, or has to go.
    pub fn handle_end(&mut self, now: Nanos, why: Close, ups: &mut UpLog) {
        // One that left without waiting for its answers resets the connection when they come.
        let has_left = self.phase == Phase::Ended && why == Close::Reset;
        let why = if has_left { Close::Left } else { why };
        self.begin_closing(now, why, ups);
        self.enter(Phase::Closed, Nanos::MAX);
    }

    /// Does what is due at `now`. An error is the link's end, as ever.
    pub fn handle_timeout(
        &mut self,
        now: Nanos,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Close> {
        match self.phase {
            Phase::Ready => self.judge_silence(now, ups).and_then(|()| self.beat(now, ups, out)),
            _ if now < self.due => Ok(()),
            Phase::Ended => {
                self.begin_closing(now, Close::Left, ups);
                Ok(())
            }
            Phase::Closing => {
                self.enter(Phase::Closed, Nanos::MAX);
                Ok(())
            }
            Phase::Http | Phase::Waiting | Phase::Closed => Ok(()),
            Phase::Proxy
            | Phase::Detect
            | Phase::Head
            | Phase::Handshake
            | Phase::Answered
            | Phase::Upgrading
            | Phase::Greeting => Err(Close::HandshakeTimeout.into()),
        }
        .map_err(|fault| self.fail(now, fault, ups, out))
    }

    // -- what it asks for --------------------------------------------------------------------------------------------

    /// Whether the deadline is another than when this was last asked: other than by bytes that came, which only put it off.
    #[inline]
    pub fn timeout_moved(&mut self) -> bool {
        std::mem::take(&mut self.deadline_moved)
    }

    /// When [`Link::handle_timeout`] may have something to do; `Nanos::MAX`: never.
    pub fn next_timeout(&self) -> Nanos {
        if self.phase != Phase::Ready {
            return self.due;
        }
        let silence =
            if self.is_silent { self.silence_max() } else { self.stale_after().min(self.silence_max()) };
        self.due.min(self.last_heard.saturating_add(silence))
    }

    /// Where its client is, if a proxy has said so since the last call.
    #[inline]
    pub fn take_moved(&mut self) -> Option<SocketAddr> {
        self.rare.as_mut()?.moved.take()
    }

    /// Whether nothing is to be read for now.
    #[inline]
    pub fn held(&self) -> bool {
        self.is_paused && self.phase != Phase::Answered || self.waits
    }

    /// Whether complete packets are left beyond the budget, that [`Link::handle_bytes`] takes without further bytes.
    pub fn has_leftover(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| self.is_packet_next(rare.joined.rest()))
    }

    /// Bytes of WebSocket frames that it keeps.
    pub fn buffered(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.joined.rest().len())
    }

    /// Whether its first bytes, still to come, may turn out to be TLS.
    #[inline]
    pub fn may_be_tls(&self) -> bool {
        self.phase == Phase::Detect && !self.rare.as_ref().is_some_and(|rare| rare.is_tls)
    }

    /// Whether the realm or the game knows of this link.
    pub fn is_opened(&self) -> bool {
        !matches!(self.phase, Phase::Proxy | Phase::Detect | Phase::Head)
    }

    /// Its id, as its owner gave it.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What is to become of the socket.
    #[inline]
    pub fn ending(&self) -> Ending {
        match self.phase {
            Phase::Closing => Ending::Drain,
            Phase::Closed => Ending::Now,
            _ => Ending::No,
        }
    }

    // -- inside ------------------------------------------------------------------------------------------------------

    fn enter(&mut self, phase: Phase, due: Nanos) {
        (self.phase, self.due, self.deadline_moved) = (phase, due, true);
    }

    /// Tells the end, once. What is queued may still leave.
    fn begin_closing(&mut self, now: Nanos, why: Close, ups: &mut UpLog) {
        if self.ending() != Ending::No {
            return;
        }
        if std::mem::take(&mut self.is_congested) {
            ups.push(Up::Relieved { link: self.id }); // what waited goes with it
        }
        ups.push(Up::Closed { link: self.id, why });
        let patience = match self.phase {
            // A page may be large and its reader slow; the game's HTTP side has bounded it until here.
            Phase::Http => self.config.drain_timeout.max(HTTP_DRAIN_NANOS),
            _ => self.config.drain_timeout,
        };
        // Nothing is heard any more, so nothing is silent, held or left over.
        (self.is_paused, self.waits, self.is_silent) = (false, false, false);
        match &mut self.rare {
            // A client's last frames are masked, too.
            Some(rare) if rare.client.is_some() => rare.joined = Leftover::default(),
            rare => *rare = None,
        }
        self.enter(Phase::Closing, now.saturating_add(patience));
    }

    /// Ends the link for a fault, with a farewell where the protocol has one.
    #[cold]
    fn fail(&mut self, now: Nanos, fault: Fault, ups: &mut UpLog, out: &mut impl Outbox) -> Close {
        if self.ending() == Ending::No {
            match fault.farewell {
                Farewell::None => {}
                Farewell::Http(answer) => {
                    let _ = self.send_plain(&answer, out); // no room for a last word: it goes without
                }
                Farewell::Code(code) => self.send_close_frame(code, out),
            }
            self.begin_closing(now, fault.why, ups);
            if fault.why == Close::Slow {
                self.enter(Phase::Closed, Nanos::MAX);
            }
        }
        fault.why
    }

    fn judge_silence(&mut self, now: Nanos, ups: &mut UpLog) -> Result<(), Fault> {
        if self.held() {
            // It may have spoken: we did not listen.
            self.last_heard = now;
            return Ok(());
        }
        let quiet = now.saturating_sub(self.last_heard);
        if quiet >= self.silence_max() {
            return Err(Close::Silent.into());
        }
        if quiet >= self.stale_after() && !self.is_silent {
            self.is_silent = true;
            ups.push(Up::Silent { link: self.id });
        }
        Ok(())
    }

    fn stale_after(&self) -> Nanos {
        match self.client_half() {
            Some(client) => client.heartbeat.saturating_mul(STALE_HEARTBEATS),
            None => self.config.stale_after,
        }
    }

    fn silence_max(&self) -> Nanos {
        self.heartbeat().saturating_mul(Nanos::from(self.config.missed_max))
    }

    fn heartbeat(&self) -> Nanos {
        self.client_half().map_or(self.config.heartbeat, |client| client.heartbeat)
    }

    fn client_half(&self) -> Option<&Client> {
        self.rare.as_ref().and_then(|rare| rare.client.as_ref())
    }

    fn client_half_mut(&mut self) -> Option<&mut Client> {
        self.rare.as_mut().and_then(|rare| rare.client.as_mut())
    }
}

/// Why a client link did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The link has the server's role.
    #[error("only a client's link starts: a server's waits for its client")]
    NoClient,
    /// Host or path cannot stand in a request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The queue is too small for the first packet.
    #[error(transparent)]
    Full(#[from] Full),
}

/// What ended a link, and what the peer is told.
#[derive(Debug)]
struct Fault {
    why: Close,
    farewell: Farewell,
}

#[derive(Debug)]
enum Farewell {
    None,
    /// A whole HTTP answer.
    Http(Vec<u8>),
    /// A close frame with this code, if frames are spoken.
    Code(u16),
}

impl From<Close> for Fault {
    fn from(why: Close) -> Self {
        Self { why, farewell: Farewell::Code(CLOSE_POLICY) }
    }
}

impl From<Full> for Fault {
    fn from(Full: Full) -> Self {
        Self { why: Close::Slow, farewell: Farewell::None }
    }
}

impl From<PacketError> for Fault {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::UnknownType(_) => Close::PacketType.into(),
            PacketError::TooLong { .. } => {
                Self { why: Close::PacketTooLong, farewell: Farewell::Code(CLOSE_TOO_BIG) }
            }
        }
    }
}

impl From<MessageError> for Fault {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::RouteNotUtf8 => Close::RouteInvalid.into(),
            MessageError::Empty
            | MessageError::UnknownFlag(_)
            | MessageError::UnknownType(_)
            | MessageError::IdCut
            | MessageError::IdOverflow
            | MessageError::RouteCut => Close::MessageInvalid.into(),
        }
    }
}

impl From<InflateError> for Fault {
    fn from(error: InflateError) -> Self {
        let code = match error {
            InflateError::TooLong { .. } => CLOSE_TOO_BIG,
            InflateError::Malformed => CLOSE_POLICY,
        };
        Self { why: Close::InflateInvalid, farewell: Farewell::Code(code) }
    }
}

impl From<WsError> for Fault {
    fn from(error: WsError) -> Self {
        Self { why: Close::WebSocketInvalid, farewell: Farewell::Code(error.close_code()) }
    }
}

impl From<ProxyError> for Fault {
    fn from(_: ProxyError) -> Self {
        Close::ProxyInvalid.into()
    }
}

impl From<wire::http::HttpError> for Fault {
    fn from(error: wire::http::HttpError) -> Self {
        Self { why: Close::HttpInvalid, farewell: Farewell::Http(error.response()) }
    }
}

impl From<UpgradeError> for Fault {
    fn from(error: UpgradeError) -> Self {
        let why = if error == UpgradeError::Origin { Close::OriginRefused } else { Close::HttpInvalid };
        Self { why, farewell: Farewell::Http(error.response()) }
    }
}

impl From<AnswerError> for Fault {
    fn from(_: AnswerError) -> Self {
        Self { why: Close::HttpInvalid, farewell: Farewell::Code(CLOSE_PROTOCOL_ERROR) }
    }
}

/// A quarter of this (or of the queue's bound, if that is less) leaves before the realm is told: one event in dozens of
/// answers, and far below what makes a session wait.
const CHARGE_TOLD_BYTES: u32 = 32 * 1024;
/// The server, not our settings, says how often it is to be heard: a client takes two heartbeats missed for silence.
const STALE_HEARTBEATS: Nanos = 2;
/// How long an HTTP client may take for the last window of its answer: as the HTTP side gives it for each.
const HTTP_DRAIN_NANOS: Nanos = 60 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_link_is_small() {
        assert!(size_of::<Link>() <= 96, "{} bytes", size_of::<Link>());
    }
}
