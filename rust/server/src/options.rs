//! What a server is told when it is made.

use std::path::PathBuf;
use std::sync::Arc;

use engine::link::LinkConfig;
use engine::realm::RealmConfig;
use net::address::Address;
use net::admission::ConnectRate;

/// Everything that can be set; Python's `Settings` with the defaults.
pub struct Options {
    /// Where to listen.
    pub addresses: Vec<Address>,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Threads that poll sockets; 0: the logic thread does.
    pub io_threads: u8,
    /// Poll without sleeping.
    pub spin: bool,
    /// Connections at most; 0: no cap.
    pub connections_max: usize,
    /// Connections from one address at most; 0: no cap.
    pub connections_per_address_max: usize,
    /// How often one address may connect; `None`: as often as it likes.
    pub connect_rate: Option<ConnectRate>,
    /// Bytes that may wait for one client.
    pub queue_bytes_max: usize,
    /// Ticks a second; 0: none.
    pub tick_rate: u32,
    /// Late ticks made up for at once.
    pub catch_up_max: u32,
    /// Beyond that: dilate time, else skip ticks.
    pub dilate: bool,
    /// For each link.
    pub link: Arc<LinkConfig>,
    /// For the realm.
    pub realm: RealmConfig,
    /// Take every log through its bytes, as a recording or another machine would (for tests).
    pub through_bytes: bool,
}
