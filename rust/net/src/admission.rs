//! How many may come in: in all, from one address, and how often from one address.

use crate::address::Peer;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The caps. Shared by all listeners and reactors that they cover.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_address_max: usize,
    connect_rate: Option<ConnectRate>,
    exempt: Exempt,
    connections: AtomicUsize,
    addresses: Mutex<Addresses>,
}

/// How often one address may connect: a token bucket, as times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRate {
    /// Nanoseconds that one connection costs.
    pub interval: u64,
    /// Connections at once.
    pub burst: u32,
}

/// Says of which addresses the caps on one do not hold.
struct Exempt(Box<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl fmt::Debug for Exempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exempt")
    }
}

#[derive(Debug, Default)]
struct Addresses {
    // The standard hasher with its random key: clients choose their addresses.
    known: HashMap<IpAddr, Known>,
    /// With so many, those that nothing is to be remembered of are forgotten.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Known {
    connections: u32,
    /// When its bucket is full again.
    full_at: u64,
    /// A number that the connections of this address share, for whatever their owner counts.
    shared: Option<Arc<AtomicU64>>,
}

impl Admission {
    /// Caps on connections in all and from one address (of IPv6: from one /64). 0: no cap.
    pub fn new(connections_max: usize, per_address_max: usize, connect_rate: Option<ConnectRate>) -> Self {
        Self {
            connections_max,
            per_address_max,
            connect_rate,
            exempt: Exempt(Box::new(|_| false)),
            connections: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    /// The caps on one address do not hold for these: proxies, behind which many stand.
    pub fn exempting(self, exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { exempt: Exempt(Box::new(exempt)), ..self }
    }

    /// A place for `peer` at `now`, in nanoseconds of any clock, kept until the answer is dropped.
    pub fn admit(self: &Arc<Self>, peer: &Peer, now: u64) -> Result<Admitted, Refused> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max
            && self.connections_max != 0
        {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        if let Some(network) = self.counted_network(peer) {
            let mut addresses = self.addresses();
            addresses.sweep(now);
            let here = addresses.known.entry(network).or_default();
            if let Err(refused) = self.admit_here(here, now) {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                return Err(refused);
            }
            here.connections += 1;
        }
        Ok(Admitted::new(Some(Arc::clone(self)), *peer))
    }

    /// The number that all connections of `peer`'s address share as long as one of them is there.
    pub fn shared(&self, peer: &Peer) -> Option<Arc<AtomicU64>> {
        let mut addresses = self.addresses();
        let here = addresses.known.get_mut(&self.counted_network(peer)?)?;
        Some(Arc::clone(here.shared.get_or_insert_default()))
    }

    /// Connections that have a place now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Addresses that are remembered: only ones with a connection.
    pub fn addresses_known(&self) -> usize {
        self.addresses().known.len()
    }

    fn counted_network(&self, peer: &Peer) -> Option<IpAddr> {
        match peer {
            Peer::Tcp(address) if (self.exempt.0)(address.ip()) => None,
            _ => peer.network(),
        }
    }

    fn admit_here(&self, here: &mut Known, now: u64) -> Result<(), Refused> {
        if here.connections as usize >= self.per_address_max && self.per_address_max != 0 {
            return Err(Refused::AddressFull);
        }
        if let Some(ConnectRate { interval, burst }) = self.connect_rate {
            let full_at = here.full_at.max(now).saturating_add(interval);
            if full_at - now > interval.saturating_mul(u64::from(burst.max(1))) {
                return Err(Refused::TooOften);
            }
            here.full_at = full_at;
        }
        Ok(())
    }

    fn release(&self, peer: &Peer) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.counted_network(peer) else { return };
        let mut addresses = self.addresses();
        let Entry::Occupied(mut here) = addresses.known.entry(network) else { return };
        here.get_mut().connections -= 1;
        // How often it connects is remembered beyond its last connection, until the next sweep.
        if here.get().connections == 0 && self.connect_rate.is_none() {
            here.remove();
        }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addresses {
    /// Forgets those without a connection whose bucket is full again; beyond a bound also the others.
    fn sweep(&mut self, now: u64) {
        if self.known.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.known.retain(|_, known| known.connections > 0 || known.full_at > now);
        if self.known.len() > REMEMBERED_MAX {
            self.known.retain(|_, known| known.connections > 0);
        }
        self.sweep_at = self.known.len() * 2;
    }
}

/// Fewer addresses than this are not swept.
const SWEEP_MIN: usize = 1024;
/// Addresses remembered beyond their connections: some MB.
const REMEMBERED_MAX: usize = 1 << 16;

/// Why there was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server is full.
    #[error("the server has all the connections that it may have (max_connections)")]
    Full,
    /// This address has all the connections that one address may have.
    #[error("this address has all the connections that it may have (max_connections_per_address)")]
    AddressFull,
    /// This address connects too often.
    #[error("this address connects more often than one address may (connect_rate)")]
    TooOften,
}

/// A peer that has a place. Dropping it frees the place.
#[derive(Debug)]
pub struct Admitted {
    admission: Option<Arc<Admission>>,
    // A `Peer` in 20 bytes in place of 32: it lies in every idle connection. No IP: a Unix socket.
    ip: Option<IpAddr>,
    port: u16,
}

impl Admitted {
    /// One that we connected to ourselves: it takes nobody's place.
    pub(crate) fn outgoing(peer: Peer) -> Self {
        Self::new(None, peer)
    }

    /// Who has the place.
    pub fn peer(&self) -> Peer {
        self.ip.map_or(Peer::Unix, |ip| Peer::Tcp(SocketAddr::new(ip, self.port)))
    }

    /// The place is `peer`'s from now on. If there is none for that one, nobody has it.
    pub(crate) fn move_to(&mut self, peer: Peer, now: u64) -> Result<(), Refused> {
        let Some(admission) = self.admission.clone() else { return Ok(()) };
        *self = Self::outgoing(self.peer());
        *self = admission.admit(&peer, now)?;
        Ok(())
    }

    /// See [`Admission::shared`].
    pub fn shared(&self) -> Option<Arc<AtomicU64>> {
        self.admission.as_ref()?.shared(&self.peer())
    }

    fn new(admission: Option<Arc<Admission>>, peer: Peer) -> Self {
        match peer {
            Peer::Tcp(address) => Self { admission, ip: Some(address.ip()), port: address.port() },
            Peer::Unix => Self { admission, ip: None, port: 0 },
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            admission.release(&self.peer());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::tcp(text.parse().unwrap())
    }

    #[test]
    fn a_place_is_free_again_once_its_guard_is_gone() {
        let admission = Arc::new(Admission::new(2, 0, None));
        let first = admission.admit(&Peer::Unix, 0).unwrap();
        let _second = admission.admit(&peer("10.0.0.1:1"), 0).unwrap();
        assert_eq!(admission.admit(&Peer::Unix, 0).unwrap_err(), Refused::Full);
        assert_eq!(admission.connections(), 2);
        drop(first);
        admission.admit(&Peer::Unix, 0).unwrap();
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let admission = Arc::new(Admission::new(0, 2, None));
        let a = admission.admit(&peer("[2001:db8::1]:1"), 0).unwrap();
        let b = admission.admit(&peer("[2001:db8::ffff:1]:2"), 0).unwrap();
        assert_eq!(admission.admit(&peer("[2001:db8::2]:3"), 0).unwrap_err(), Refused::AddressFull);
        assert_eq!(admission.connections(), 2, "a refusal gives its place back");
        let c = admission.admit(&peer("[2001:db8:0:1::1]:1"), 0).unwrap();
        drop(a);
        let d = admission.admit(&peer("[2001:db8::2]:3"), 0).unwrap();
        drop((b, c, d));
        assert_eq!((admission.connections(), admission.addresses_known()), (0, 0));
    }

    #[test]
    fn a_place_knows_its_peer() {
        let admission = Arc::new(Admission::new(0, 0, None));
        for peer in [peer("10.0.0.1:65535"), peer("[2001:db8::1]:1"), Peer::Unix] {
            assert_eq!(admission.admit(&peer, 0).unwrap().peer(), peer);
        }
    }

    #[test]
    fn a_unix_socket_has_no_address_to_cap() {
        let admission = Arc::new(Admission::new(0, 1, None));
        let _both = (admission.admit(&Peer::Unix, 0).unwrap(), admission.admit(&Peer::Unix, 0).unwrap());
    }

    #[test]
    fn one_address_connects_so_often_and_no_more() {
        let rate = ConnectRate { interval: 100, burst: 3 };
        let admission = Arc::new(Admission::new(0, 0, Some(rate)));
        let knock = |text: &str, now| admission.admit(&peer(text), now).map(|_| ()).err();
        assert_eq!([0; 4].map(|now| knock("10.0.0.1:1", now)), [None, None, None, Some(Refused::TooOften)]);
        assert_eq!(knock("10.0.0.2:1", 0), None, "another address");
        assert_eq!((knock("10.0.0.1:1", 99), knock("10.0.0.1:1", 100)), (Some(Refused::TooOften), None));
        assert_eq!(knock("10.0.0.1:1", 100), Some(Refused::TooOften));
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn who_has_gone_is_forgotten_in_time_and_within_bounds() {
        let admission = Arc::new(Admission::new(0, 0, Some(ConnectRate { interval: 1, burst: 1_000_000 })));
        let address = |number: u32| Peer::tcp(SocketAddr::new(IpAddr::V4(number.into()), 1));
        let stays = admission.admit(&address(1), 0).unwrap();
        for number in 2..400_000 {
            drop(admission.admit(&address(number), 0).unwrap());
            assert!(admission.addresses_known() <= 2 * REMEMBERED_MAX + 1);
        }
        for number in 0..400_000 {
            drop(admission.admit(&address(number), 1_000_000_000).unwrap());
        }
        assert!(admission.shared(&address(1)).is_some(), "it has a connection");
        drop(stays);
    }
}
