//! What proxies say of whom they stand for: the PROXY protocol's version 2, and the `Forwarded` header of HTTP (RFC 7239).
//!
//! Both are worth what their sender is worth: ask only those that [`Networks`] lists.
//! PROXY v2: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, section 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::http::Headers;
use crate::packet::Decoded;

/// A range of addresses: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

/// No range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address, or a network like 10.0.0.0/8")]
pub struct NetworkError;

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                (own.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                (own.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip = ip.parse::<IpAddr>().map_err(|_| NetworkError)?.to_canonical();
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| NetworkError)?;
        if prefix > bits { Err(NetworkError) } else { Ok(Self { ip, prefix }) }
    }
}

/// Addresses that are believed; none at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Ranges.
    pub ranges: Vec<Network>,
    /// Whoever comes by a Unix socket.
    pub unix: bool,
}

impl Networks {
    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && !self.unix
    }

    /// Whether an address is believed.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|network| network.contains(ip))
    }
}

/// What a PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// This client is behind the proxy.
    Client(SocketAddr),
    /// The proxy speaks for itself (a health check), or for somebody who has no address of the internet.
    Local,
}

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// They begin otherwise.
    #[error("no PROXY protocol header, version 2")]
    Signature,
    /// Version, command or family that does not exist, or addresses that do not fit.
    #[error("a PROXY protocol header that is wrong")]
    Malformed,
    /// It says that it has more than [`PROXY_BYTES_MAX`] bytes.
    #[error("a PROXY protocol header of over {PROXY_BYTES_MAX} bytes")]
    TooLong,
}

/// The longest header that is read: addresses, and room for what else proxies tell (of which we take nothing).
pub const PROXY_BYTES_MAX: usize = 2048;

/// Reads the header that a connection begins with.
pub fn parse_proxy(bytes: &[u8]) -> Result<Decoded<Proxied>, ProxyError> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Err(ProxyError::Signature);
    }
    let Some(&[version_command, family, high, low]) = bytes.get(SIGNATURE.len()..HEADER_BYTES) else {
        return Ok(Decoded::Incomplete { needed: HEADER_BYTES });
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 {
        return Err(ProxyError::Malformed);
    }
    if HEADER_BYTES + length > PROXY_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let Some(rest) = bytes.get(HEADER_BYTES..HEADER_BYTES + length) else {
        return Ok(Decoded::Incomplete { needed: HEADER_BYTES + length });
    };
    let item = match (version_command & 0xf, family) {
        (0, _) => Proxied::Local,
        (1, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *rest else { return Err(ProxyError::Malformed) };
            client(Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }
        (1, 0x21) => {
            let Some((ip, others)) = rest.split_first_chunk::<16>() else {
                return Err(ProxyError::Malformed);
            };
            let Some(&[high, low]) = others.get(16..18) else { return Err(ProxyError::Malformed) };
            client(Ipv6Addr::from(*ip).into(), [high, low])
        }
        // Not of the internet, or not said: what the proxy's own connection is, counts.
        (1, 0x00 | 0x31 | 0x32) => Proxied::Local,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Decoded::Complete { item, consumed: HEADER_BYTES + length })
}

fn client(ip: IpAddr, port: [u8; 2]) -> Proxied {
    Proxied::Client(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(port)))
}

/// Whom an HTTP request is from, and how they reached the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The client; its port is 0 where the proxy does not tell it.
    pub client: SocketAddr,
    /// By `https` or `wss`.
    pub is_secure: bool,
}

/// Whom a request is from that a believed proxy has sent: the last address of `Forwarded` (else of `X-Forwarded-For`) that
/// is no believed proxy itself. `None`: it is the proxy's own, or what it says can't be read.
pub fn forwarded(headers: &Headers<'_>, believed: &Networks) -> Option<Forwarded> {
    let elements: Vec<Element<'_>> = if headers.has("forwarded") {
        headers
            .all("forwarded")
            .flat_map(|value| split_outside_quotes(value, b','))
            .map(forwarded_element)
            .collect()
    } else {
        let proto = headers.all("x-forwarded-proto").last();
        let is_secure =
            proto.is_some_and(|value| is_secure(value.rsplit(|&byte| byte == b',').next().unwrap_or(value)));
        let addresses = headers.all("x-forwarded-for").flat_map(|value| value.split(|&byte| byte == b','));
        addresses.map(|node| Element { node: Some(node), is_secure }).collect()
    };
    // From the right, where those stand that were added last: who is believed says who was before.
    for element in elements.iter().rev() {
        let client = node_address(element.node?)?;
        if !believed.contains(client.ip()) {
            return Some(Forwarded { client, is_secure: element.is_secure });
        }
    }
    None
}

struct Element<'a> {
    node: Option<&'a [u8]>,
    is_secure: bool,
}

fn forwarded_element(element: &[u8]) -> Element<'_> {
    let mut found = Element { node: None, is_secure: false };
    for pair in split_outside_quotes(element, b';') {
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"for") {
            found.node = Some(value);
        } else if name.eq_ignore_ascii_case(b"proto") {
            found.is_secure = is_secure(value);
        }
    }
    found
}

fn is_secure(proto: &[u8]) -> bool {
    let proto = unquoted(proto.trim_ascii());
    proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
}

/// `192.0.2.43`, `192.0.2.43:47011`, `"[2001:db8::1]:4711"`, `2001:db8::1`. Names that hide an address are none.
fn node_address(node: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(unquoted(node.trim_ascii())).ok()?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?.to_canonical(), 0))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn split_outside_quotes(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    value.split(move |&byte| {
        is_quoted ^= byte == b'"';
        byte == separator && !is_quoted
    })
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const HEADER_BYTES: usize = SIGNATURE.len() + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    fn whole(bytes: &[u8]) -> Result<Proxied, ProxyError> {
        match parse_proxy(bytes)? {
            Decoded::Complete { item, consumed } => {
                assert_eq!(consumed, bytes.len());
                Ok(item)
            }
            Decoded::Incomplete { .. } => panic!("it is whole"),
        }
    }

    #[test]
    fn headers_as_proxies_write_them() {
        let v4 = [192, 0, 2, 43, 10, 0, 0, 1, 0x1f, 0x90, 0x1e, 0x61];
        let client = |text: &str| Ok(Proxied::Client(text.parse().unwrap()));
        assert_eq!(whole(&header(0x21, 0x11, &v4)), client("192.0.2.43:8080"));
        let with_tlv = [&v4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(whole(&header(0x21, 0x11, &with_tlv)), client("192.0.2.43:8080"));
        let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let v6 = [&ip.octets()[..], &[0; 16], &[1, 2, 3, 4]].concat();
        assert_eq!(whole(&header(0x21, 0x21, &v6)), client("[2001:db8::7]:258"));
        let mapped =
            [&"::ffff:10.1.2.3".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 16], &[0, 9, 3, 4]].concat();
        assert_eq!(whole(&header(0x21, 0x21, &mapped)), client("10.1.2.3:9"));
        for local in [
            header(0x20, 0x00, &[]),
            header(0x20, 0x11, &v4),
            header(0x21, 0x31, &[0; 216]),
            header(0x21, 0, &[]),
        ] {
            assert_eq!(whole(&local), Ok(Proxied::Local));
        }
    }

    #[test]
    fn headers_that_are_none() {
        let v4 = [192, 0, 2, 43, 10, 0, 0, 1, 0x1f, 0x90, 0x1e, 0x61];
        for wrong in [
            header(0x11, 0x11, &v4),
            header(0x22, 0x11, &v4),
            header(0x21, 0x12, &v4),
            header(0x21, 0x11, &v4[..9]),
            header(0x21, 0x21, &[0; 33]),
        ] {
            assert_eq!(parse_proxy(&wrong), Err(ProxyError::Malformed), "{wrong:?}");
        }
        assert_eq!(parse_proxy(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), Err(ProxyError::Signature));
        assert_eq!(parse_proxy(&header(0x21, 0x11, &[0; 3000])[..16]), Err(ProxyError::TooLong));
    }

    #[test]
    fn a_header_that_drips_in_is_awaited_to_its_end() {
        let header = header(0x21, 0x11, &[9; 20]);
        for seen in 0..header.len() {
            let needed = if seen < HEADER_BYTES { HEADER_BYTES } else { header.len() };
            assert_eq!(parse_proxy(&header[..seen]), Ok(Decoded::Incomplete { needed }));
        }
    }

    #[test]
    fn networks_have_their_addresses_and_no_others() {
        let network = |text: &str| text.parse::<Network>();
        let contains = |range: &str, ip: &str| network(range).unwrap().contains(ip.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.7", "10.0.0.7") && !contains("10.0.0.7", "10.0.0.6"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe80::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"), "an IPv4 address in IPv6's dress");
        for wrong in
            ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "host", "10.0.0.0/8/8", "10.0.0.0/"]
        {
            assert_eq!(network(wrong), Err(NetworkError), "{wrong}");
        }
    }

    fn told(headers: &str) -> Option<(String, bool)> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let Ok(Decoded::Complete { item, .. }) = parse_head(text.as_bytes(), 8192) else { panic!("{text}") };
        let believed = Networks { ranges: vec!["10.0.0.0/8".parse().unwrap()], unix: false };
        forwarded(&item.headers, &believed).map(|found| (found.client.to_string(), found.is_secure))
    }

    #[test]
    fn the_nearest_whom_nobody_vouches_for_is_the_client() {
        let some = |text: &str, is_secure| Some((text.to_owned(), is_secure));
        assert_eq!(told("Forwarded: for=192.0.2.43\r\n"), some("192.0.2.43:0", false));
        assert_eq!(
            told("Forwarded: For=\"[2001:db8:cafe::17]:4711\";proto=HTTPS\r\n"),
            some("[2001:db8:cafe::17]:4711", true)
        );
        // What the client wrote itself stands to the left of what the proxy has added.
        assert_eq!(
            told("Forwarded: for=1.2.3.4, for=192.0.2.9;proto=wss;by=10.0.0.1\r\n"),
            some("192.0.2.9:0", true)
        );
        assert_eq!(
            told("Forwarded: for=192.0.2.9\r\nForwarded: for=10.0.0.2, for=10.0.0.3\r\n"),
            some("192.0.2.9:0", false)
        );
        assert_eq!(
            told("X-Forwarded-For: 1.2.3.4, 192.0.2.9, 10.0.0.3\r\nX-Forwarded-Proto: https\r\n"),
            some("192.0.2.9:0", true)
        );
        assert_eq!(told("X-Forwarded-For: 2001:db8::1\r\n"), some("[2001:db8::1]:0", false));
        // The standard header wins; one that hides the address, or is broken, names nobody.
        assert_eq!(told("X-Forwarded-For: 1.2.3.4\r\nForwarded: for=_hidden\r\n"), None);
        for nobody in [
            "",
            "Forwarded: for=10.0.0.9\r\n",
            "Forwarded: proto=https\r\n",
            "Forwarded: for=\"a,b\"\r\n",
            "X-Forwarded-For: ,\r\n",
        ] {
            assert_eq!(told(nobody), None, "{nobody}");
        }
    }
}
