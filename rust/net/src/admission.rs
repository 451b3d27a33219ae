//! How many may come in: in all, and from one address.

use crate::address::Peer;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The two caps. Shared by all listeners and reactors that they cover.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_address_max: usize,
    connections: AtomicUsize,
    // The standard hasher with its random key: clients choose their addresses.
    addresses: Mutex<HashMap<IpAddr, u32>>,
}

impl Admission {
    /// Caps on connections in all and from one address (of IPv6: from one /64). 0: no cap.
    pub fn new(connections_max: usize, per_address_max: usize) -> Self {
        Self {
            connections_max,
            per_address_max,
            connections: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    /// A place for `peer`, kept until the answer is dropped.
    pub fn admit(self: &Arc<Self>, peer: &Peer) -> Result<Admitted, Refused> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max
            && self.connections_max != 0
        {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        if let Some(network) = self.counted_network(peer) {
            let mut addresses = self.addresses();
            let here = addresses.entry(network).or_insert(0);
            if *here as usize >= self.per_address_max {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                return Err(Refused::AddressFull);
            }
            *here += 1;
        }
        Ok(Admitted::new(Some(Arc::clone(self)), *peer))
    }

    /// Connections that have a place now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Addresses that are remembered: only ones with a connection.
    pub fn addresses_known(&self) -> usize {
        self.addresses().len()
    }

    /// The address that `peer` counts for, if addresses are counted.
    fn counted_network(&self, peer: &Peer) -> Option<IpAddr> {
        if self.per_address_max == 0 { None } else { peer.network() }
    }

    fn release(&self, peer: &Peer) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.counted_network(peer) else { return };
        let mut addresses = self.addresses();
        if let Some(here) = addresses.get_mut(&network) {
            *here -= 1;
            if *here == 0 {
                addresses.remove(&network);
            }
        }
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server is full.
    #[error("the server has all the connections that it may have (max_connections)")]
    Full,
    /// This address has all the connections that one address may have.
    #[error("this address has all the connections that it may have (max_connections_per_address)")]
    AddressFull,
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
        let admission = Arc::new(Admission::new(2, 0));
        let first = admission.admit(&Peer::Unix).unwrap();
        let _second = admission.admit(&peer("10.0.0.1:1")).unwrap();
        assert_eq!(admission.admit(&Peer::Unix).unwrap_err(), Refused::Full);
        assert_eq!(admission.connections(), 2);
        drop(first);
        admission.admit(&Peer::Unix).unwrap();
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let admission = Arc::new(Admission::new(0, 2));
        let a = admission.admit(&peer("[2001:db8::1]:1")).unwrap();
        let b = admission.admit(&peer("[2001:db8::ffff:1]:2")).unwrap();
        assert_eq!(admission.admit(&peer("[2001:db8::2]:3")).unwrap_err(), Refused::AddressFull);
        assert_eq!(admission.connections(), 2, "a refusal gives its place back");
        let c = admission.admit(&peer("[2001:db8:0:1::1]:1")).unwrap();
        drop(a);
        let d = admission.admit(&peer("[2001:db8::2]:3")).unwrap();
        drop((b, c, d));
        assert_eq!((admission.connections(), admission.addresses_known()), (0, 0));
    }

    #[test]
    fn a_place_knows_its_peer() {
        let admission = Arc::new(Admission::new(0, 0));
        for peer in [peer("10.0.0.1:65535"), peer("[2001:db8::1]:1"), Peer::Unix] {
            assert_eq!(admission.admit(&peer).unwrap().peer(), peer);
        }
    }

    #[test]
    fn a_unix_socket_has_no_address_to_cap() {
        let admission = Arc::new(Admission::new(0, 1));
        let _both = (admission.admit(&Peer::Unix).unwrap(), admission.admit(&Peer::Unix).unwrap());
    }
}
