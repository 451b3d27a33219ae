//! Settings of a link: what it may cost, and for how long.

use std::sync::Arc;

use wire::websocket::upgrade::origin_allowed;

use crate::event::Nanos;
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
            allowed_origins: Origins::default(),
            http: true,
            compress_bytes_min: None,
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
