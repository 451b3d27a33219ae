//! Where a link's packets go: into its socket's queue, or to the system past it.

use std::sync::Arc;

use bytes::Bytes;
use engine::event::Class;
use engine::link::{Full, Outbox};
use net::pool::Pool;
use net::queue::{self, SendQueue};

/// A socket's queue as the engine's outbox.
pub struct Out<'a> {
    pub queue: &'a mut SendQueue,
    pub pool: &'a Pool,
}

impl Outbox for Out<'_> {
    #[inline]
    fn packet(&mut self, class: Class, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        self.queue.append(self.pool, net_class(class), key, write).map_err(|_| Full)
    }

    #[inline]
    fn packets(&mut self, packets: &[u8]) -> Result<(), Full> {
        let write = |bytes: &mut Vec<u8>| bytes.extend_from_slice(packets);
        self.queue.append_sized(self.pool, queue::Class::Reliable, 0, packets.len(), write).map_err(|_| Full)
    }

    fn block(&mut self, class: Class, key: u64, bytes: &Arc<Bytes>) -> Result<(), Full> {
        self.queue.append_shared(self.pool, net_class(class), key, bytes).map_err(|_| Full)
    }
}

/// What a link says, before it is known whether it has to wait.
pub struct Said<'a> {
    bytes: &'a mut Vec<u8>,
    /// What it says perhaps, and then without a copy.
    log: &'a [u8],
    /// It has said that, and nothing else.
    is_log: bool,
    first: Option<(Class, u64)>,
    /// It is one packet, or none.
    is_one: bool,
}

impl<'a> Said<'a> {
    /// Nothing yet; `bytes` is emptied. Most links say just the `log` that they are given, as it stands.
    pub fn new(bytes: &'a mut Vec<u8>, log: &'a [u8]) -> Self {
        bytes.clear();
        Self { bytes, log, is_log: false, first: None, is_one: true }
    }

    /// All that it has said.
    pub fn into_bytes(self) -> &'a [u8] {
        if self.is_log { self.log } else { self.bytes }
    }

    /// How it waits, if it has to.
    pub fn kind(&self) -> (queue::Class, u64) {
        match self.first {
            Some((class, key)) if self.is_one => (net_class(class), key),
            _ => (queue::Class::Reliable, 0),
        }
    }

    fn note(&mut self, class: Class, key: u64) {
        self.is_one = self.first.is_none();
        self.first.get_or_insert((class, key));
        if std::mem::take(&mut self.is_log) {
            self.bytes.extend_from_slice(self.log);
        }
    }
}

impl Outbox for Said<'_> {
    #[inline]
    fn packet(&mut self, class: Class, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        self.note(class, key);
        write(self.bytes);
        Ok(())
    }

    #[inline]
    fn packets(&mut self, packets: &[u8]) -> Result<(), Full> {
        self.note(Class::Reliable, 0);
        self.is_log = self.is_one && std::ptr::eq(packets, self.log);
        if !self.is_log {
            self.bytes.extend_from_slice(packets);
        }
        Ok(())
    }

    fn block(&mut self, class: Class, key: u64, bytes: &Arc<Bytes>) -> Result<(), Full> {
        self.note(class, key);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// An outbox that knows the round trip time.
pub struct Metered<'a, 'b> {
    pub out: &'a mut Out<'b>,
    pub rtt_us: u32,
}

impl Outbox for Metered<'_, '_> {
    fn packet(&mut self, class: Class, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full> {
        self.out.packet(class, key, write)
    }

    fn block(&mut self, class: Class, key: u64, bytes: &Arc<Bytes>) -> Result<(), Full> {
        self.out.block(class, key, bytes)
    }

    fn rtt_us(&self) -> u32 {
        self.rtt_us
    }
}

fn net_class(class: Class) -> queue::Class {
    match class {
        Class::Reliable => queue::Class::Reliable,
        Class::Latest => queue::Class::Latest,
        Class::Droppable => queue::Class::Droppable,
    }
}
