//! Where we listen and connect, and who is at the other end.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// A place to listen at or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A Unix socket's file.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its IPv4 or IPv6 address. Never an IPv4 address dressed as IPv6.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// A peer by its address; an IPv4 address that a dual-stack socket shows as IPv6 becomes what it is.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// The network that counts as one client: an IPv4 address, or a /64 of IPv6, which is what one household or one
    /// rented machine gets. `None` on a Unix socket.
    pub(crate) fn network(&self) -> Option<IpAddr> {
        match self {
            Self::Unix => None,
            Self::Tcp(address) => Some(match address.ip() {
                v4 @ IpAddr::V4(_) => v4,
                IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            }),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
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
    fn a_mapped_address_is_shown_as_what_it_is() {
        assert_eq!(peer("[::ffff:10.0.0.7]:51234").to_string(), "10.0.0.7:51234");
        assert_eq!(peer("[::1]:5").to_string(), "[::1]:5");
        assert_eq!(Peer::Unix.to_string(), "unix");
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_a_64() {
        assert_eq!(peer("10.0.0.7:1").network(), peer("[::ffff:10.0.0.7]:2").network());
        assert_ne!(peer("10.0.0.7:1").network(), peer("10.0.0.8:1").network());
        assert_eq!(peer("[2001:db8:1:2:3::4]:1").network(), peer("[2001:db8:1:2:ffff::]:2").network());
        assert_ne!(peer("[2001:db8:1:2::]:1").network(), peer("[2001:db8:1:3::]:1").network());
    }
}
