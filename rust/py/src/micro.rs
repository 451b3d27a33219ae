//! A message's whole way without sockets: bytes in a receive buffer to bytes in a send buffer.
//!
//! For the bench: far less noisy than anything with sockets.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::event::{Class, Close, LinkId, Nanos, UpLog};
use engine::link::{Full, Link, LinkConfig, Outbox, Pass};
use pyo3::prelude::*;
use wire::packet::{self, PacketKind};

use crate::app::Shared;
use crate::dispatch;
use crate::error::PROTOCOL_ERROR;
use crate::scope::Scope;

const HANDSHAKE: &[u8] = br#"{"sys":{"type":"bench","version":"1.0.0"},"user":{}}"#;

/// A send buffer that takes everything.
#[derive(Default)]
struct Sink(Vec<u8>);

impl Outbox for Sink {
    #[inline]
    fn packet(&mut self, _: Class, _: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        write(&mut self.0);
        Ok(())
    }

    #[inline]
    fn packets(&mut self, packets: &[u8]) -> Result<(), Full> {
        self.0.extend_from_slice(packets);
        Ok(())
    }

    fn block(&mut self, _: Class, _: u64, bytes: &Arc<Bytes>) -> Result<(), Full> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// One link in memory, and the logs between it and the realm.
struct Bench<'py> {
    py: Python<'py>,
    core: Arc<Shared>,
    link: Link,
    ups: UpLog,
    out: Sink,
    now: Nanos,
}

impl Bench<'_> {
    /// A pass: bytes in, handlers, bytes out.
    fn pass(&mut self, bytes: &mut [u8]) -> PyResult<()> {
        let mut pass = Pass { budget: usize::MAX, at: self.now };
        self.out.0.clear();
        let taken = self.link.handle_bytes(self.now, bytes, &mut pass, &mut self.ups, &mut self.out);
        if taken.is_err() || taken.is_ok_and(|taken| taken.consumed != bytes.len()) {
            return Err(PROTOCOL_ERROR.err(self.py, "the link did not take the bytes"));
        }
        self.dispatch()
    }

    /// Handlers, and the bytes of what they answer.
    fn dispatch(&mut self) -> PyResult<()> {
        let ups = std::mem::take(&mut self.ups);
        dispatch::log(self.py, &Scope::open(self.py, &self.core)?, &ups)?;
        self.ups = ups;
        self.ups.clear();
        let mut state = self.core.enter()?;
        let downs = state.server.realm.downs(self.link.id().reactor());
        for down in &downs.events {
            let _ = self.link.handle_down(self.now, down, downs, &mut self.ups, &mut self.out);
        }
        downs.clear();
        self.link.handle_sent(0, &mut self.ups);
        Ok(())
    }
}

/// Nanoseconds per message for `rounds` passes of `depth` requests to `route`.
pub fn run(
    py: Python<'_>,
    core: &Arc<Shared>,
    route: &str,
    body: &[u8],
    depth: usize,
    rounds: usize,
) -> PyResult<f64> {
    let (config, now) = {
        let state = core.enter()?;
        let config = LinkConfig { routes: Arc::new(state.server.routes().clone()), ..LinkConfig::default() };
        (Arc::new(config), state.now())
    };
    let link = Link::server(now, LinkId::new(0, 0, 0), config, "bench");
    let mut bench = Bench { py, core: core.clone(), link, ups: UpLog::default(), out: Sink::default(), now };
    let mut hello = Vec::new();
    packet::encode(PacketKind::Handshake, HANDSHAKE, &mut hello);
    bench.pass(&mut hello)?;
    let mut ack = Vec::new();
    packet::encode(PacketKind::HandshakeAck, b"", &mut ack);
    bench.pass(&mut ack)?;

    let mut batch = Vec::new();
    for number in 0..depth {
        let mut message = vec![0x00, number as u8 & 0x7f, route.len() as u8];
        message.extend_from_slice(route.as_bytes());
        message.extend_from_slice(body);
        packet::encode(PacketKind::Data, &message, &mut batch);
    }
    let began = Instant::now();
    for _ in 0..rounds {
        bench.pass(&mut batch)?;
        if bench.out.0.is_empty() {
            return Err(
                PROTOCOL_ERROR.err(py, "nothing was answered: is the handler sync, and the route right?")
            );
        }
    }
    let nanos = began.elapsed().as_nanos() as f64 / (rounds * depth) as f64;
    bench.link.handle_end(now, Close::Left, &mut bench.ups);
    bench.dispatch()?;
    Ok(nanos)
}
