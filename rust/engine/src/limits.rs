//! Settings of a link: what it may cost, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;

use wire::proxy::Networks;
use wire::websocket::deflate::DeflateMode;
use wire::websocket::upgrade::origin_allowed;

use crate::event::Nanos;
use crate::rate::{Limit, Rate};
use crate::route::RouteTable;

/// Settings shared by links.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The routes that somebody handles.
    pub routes: Arc<RouteTable>,
    /// From the first byte that could come to a whole handshake, and from our answer to its acknowledgement.
    pub handshake_timeout: Nanos,
    /// Between two heartbeats of ours.
    pub heartbeat: Nanos,
    /// Silence after which a client counts as gone for the moment.
    pub stale_after: Nanos,
    /// After so many heartbeats' time without a byte the link is closed.
    pub missed_max: u32,
    /// How long a closing link may take to send what is queued.
    pub drain_timeout: Nanos,
    /// The longest packet body before the client has acknowledged our answer.
    pub auth_bytes_max: usize,
    /// The longest packet body after that.
    pub body_bytes_max: usize,
    /// The longest HTTP request head.
    pub http_head_bytes_max: usize,
    /// What a compressed body may become.
    pub inflate_bytes_max: usize,
    /// Reliable bytes that may be queued. The queue itself is the socket's; here it sets how finely what has left is told.
    pub queue_bytes_max: u32,
    /// Bytes that wait after a send, beyond which a client counts as congested; with a quarter of them no longer.
    pub congested_bytes: u32,
    /// Messages of one client, whatever their routes.
    pub messages: Option<Limit>,
    /// Messages of all clients of one address together; more are treated as `messages` says, or dropped.
    pub address_messages: Option<Rate>,
    /// Whose word for where a client is counts.
    pub proxies: Proxies,
    /// Whether WebSocket clients may compress.
    pub deflate: DeflateMode,
    /// Pages that may open WebSockets beside our own.
    pub allowed_origins: Origins,
    /// Whether plain HTTP is handed up; else it is answered 404.
    pub http: bool,
    /// Bodies of at least so many bytes are compressed toward clients that compress; `None`: never.
    pub compress_bytes_min: Option<usize>,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            routes: Arc::default(),
            handshake_timeout: 5 * SECOND,
            heartbeat: 15 * SECOND,
            // Two and a half heartbeats: Pomelo's JavaScript clients, when idle, answer every second one.
            stale_after: 37 * SECOND + SECOND / 2,
            missed_max: 3,
            drain_timeout: 5 * SECOND,
            auth_bytes_max: 4096,
            body_bytes_max: 64 * 1024,
            http_head_bytes_max: wire::http::HEAD_BYTES_MAX,
            inflate_bytes_max: 64 * 1024,
            queue_bytes_max: 1 << 20,
            congested_bytes: 256 << 10,
            messages: None,
            address_messages: None,
            proxies: Proxies::default(),
            deflate: DeflateMode::Off,
            allowed_origins: Origins::default(),
            http: true,
            compress_bytes_min: None,
        }
    }
}

/// Proxies that stand in front of us.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Where they are.
    pub networks: Arc<Networks>,
    /// Their connections begin with a PROXY header, and what HTTP says of forwarding is the client's own word; else the
    /// `Forwarded` header counts.
    pub protocol: bool,
}

impl Proxies {
    /// Whether an address, as a link is given it, is one of theirs.
    pub(crate) fn has(&self, address: &str) -> bool {
        if self.networks.is_empty() {
            return false;
        }
        match address.parse::<SocketAddr>() {
            Ok(address) => self.networks.contains(address.ip()),
            Err(_) => self.networks.unix,
        }
    }
}

/// Which pages may open WebSockets.
#[derive(Clone, Debug, Default)]
pub struct Origins(Arc<[String]>);

impl Origins {
    /// These, spelled as browsers do (`https://game.example`), beside our own; `*` is all.
    pub fn new(allowed: Vec<String>) -> Self {
        Self(allowed.into())
    }

    pub(crate) fn allow(&self, origin: Option<&str>, host: &str, is_secure: bool) -> bool {
        origin_allowed(origin, host, is_secure, &self.0)
    }
}

const SECOND: Nanos = 1_000_000_000;
