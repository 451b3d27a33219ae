//! Where a client is, in 20 bytes: one lies in every session.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A client's address, as far as it has a form that is shorter than its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        ip: IpAddr,
        port: u16,
    },
    Unix,
    /// Its text is kept elsewhere.
    Other,
}

impl Address {
    /// The address of this text; [`Address::Other`] if it would not be shown as the same text again.
    pub fn parse(text: &str) -> Self {
        let found = match text.parse::<SocketAddr>() {
            Ok(address) => Self::Tcp { ip: address.ip(), port: address.port() },
            Err(_) => Self::Unix,
        };
        if found.to_string() == text { found } else { Self::Other }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tcp { ip, port } => SocketAddr::new(ip, port).fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Other => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_told() {
        for text in ["10.0.0.7:51234", "[2001:db8::1]:65535", "[::ffff:10.0.0.7]:1", "unix"] {
            assert_eq!(Address::parse(text).to_string(), text);
        }
        for text in
            ["", "010.0.0.7:1", "[2001:DB8::1]:1", "[fe80::1%3]:1", "10.0.0.7", "10.0.0.7:080", "a name"]
        {
            assert_eq!(Address::parse(text), Address::Other, "{text}");
        }
        assert_eq!(size_of::<Address>(), 20);
    }
}
