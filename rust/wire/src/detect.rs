//! What a connection speaks, told by its first bytes.

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detected {
    /// Too few to tell.
    Incomplete,
    /// Packets: the first is a handshake.
    Packets,
    /// HTTP/1: a WebSocket upgrade, or not.
    Http,
    /// A TLS record with a handshake.
    Tls,
    /// Nothing that is spoken here.
    Unknown,
}

/// Tells what a connection speaks. No answer needs more than eight bytes.
pub fn detect(first: &[u8]) -> Detected {
    match first {
        [] | [TLS_HANDSHAKE] => Detected::Incomplete,
        [PACKET_HANDSHAKE, ..] => Detected::Packets,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Detected::Tls,
        _ if METHODS.iter().any(|method| first.starts_with(method)) => Detected::Http,
        _ if METHODS.iter().any(|method| method.starts_with(first)) => Detected::Incomplete,
        _ => Detected::Unknown,
    }
}

const PACKET_HANDSHAKE: u8 = 0x01;
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_apart() {
        for (first, detected) in [
            (&b""[..], Detected::Incomplete),
            (b"\x01", Detected::Packets),
            (b"\x01\x00\x00\x44{", Detected::Packets),
            (b"\x16", Detected::Incomplete),
            (b"\x16\x03", Detected::Tls),
            (b"\x16\x03\x01\x02\x00", Detected::Tls),
            (b"\x16\x02", Detected::Unknown),
            (b"G", Detected::Incomplete),
            (b"P", Detected::Incomplete),
            (b"GET", Detected::Incomplete),
            (b"GET /", Detected::Http),
            (b"OPTIONS * HTTP/1.1", Detected::Http),
            (b"GETTER", Detected::Unknown),
            (b"get /", Detected::Unknown),
            (b"PRI * HTTP/2.0", Detected::Unknown),
            (b"\x02\x00\x00\x00", Detected::Unknown),
            (b"\x04", Detected::Unknown),
            (b"SSH-2.0-x", Detected::Unknown),
            (b"\x00", Detected::Unknown),
        ] {
            assert_eq!(detect(first), detected, "{first:?}");
        }
    }

    #[test]
    fn eight_bytes_are_enough() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                assert_ne!(detect(&[first, second, 0, 0, 0, 0, 0, 0]), Detected::Incomplete);
            }
        }
        assert_ne!(detect(b"CONNECT "), Detected::Incomplete);
    }
}
