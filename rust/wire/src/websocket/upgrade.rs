//! From HTTP to WebSocket, both roles. Subprotocols that a client offers, and extensions other than `permessage-deflate`, are
//! declined by not being answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::http::{Head, ResponseHead, plain_response};

/// Why a request is not upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Not a GET.
    #[error("a WebSocket begins with GET")]
    Method,
    /// HTTP/1.0.
    #[error("a WebSocket begins with HTTP/1.1")]
    HttpVersion,
    /// No `Host`, or several.
    #[error("the request needs one Host")]
    Host,
    /// No `Upgrade: websocket`, or no `Connection: Upgrade`.
    #[error("this is a WebSocket: the request needs Upgrade: websocket and Connection: Upgrade")]
    NotAnUpgrade,
    /// Another version than 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// No key, several, or one that is not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// The request has a body.
    #[error("the request must not have a body")]
    Body,
    /// The page that asks is not allowed to.
    #[error("this origin is not allowed (allowed_origins)")]
    Origin,
}

/// Why a server's answer is no upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Anything but 101.
    #[error("the server answered {0}, not 101")]
    Status(u16),
    /// The headers of an upgrade are missing or wrong.
    #[error("the server's answer is no WebSocket upgrade: {0}")]
    Header(&'static str),
}

/// A request cannot be written with a host, target or origin that has spaces or control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("host, target and origin of a request are printable ASCII without spaces")]
pub struct RequestError;

/// Whether a request wants to become a WebSocket; if not, it is plain HTTP. (HTTP/1.0 knows no upgrades: its header is
/// ignored, as RFC 9110 has it.)
pub fn wants_upgrade(head: &Head<'_>) -> bool {
    head.minor_version >= 1 && head.headers.lists("upgrade", "websocket")
}

/// The 101 that answers a right request.
///
/// `origin_allowed` is asked with the `Origin`, if there is one (browsers always send it, most others never do), and
/// the `Host`; see [`origin_allowed`].
///
/// `extension` is what the answer says of an extension that was agreed on.
pub fn accept(
    head: &Head<'_>,
    extension: Option<&str>,
    origin_allowed: impl FnOnce(Option<&str>, &str) -> bool,
) -> Result<Vec<u8>, UpgradeError> {
    let headers = &head.headers;
    if head.method != "GET" {
        return Err(UpgradeError::Method);
    }
    if head.minor_version < 1 {
        return Err(UpgradeError::HttpVersion);
    }
    let host = headers.one("host").and_then(text).ok_or(UpgradeError::Host)?;
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(UpgradeError::NotAnUpgrade);
    }
    if headers.one("sec-websocket-version") != Some(b"13") {
        return Err(UpgradeError::Version);
    }
    let key = headers.one("sec-websocket-key").ok_or(UpgradeError::Key)?;
    if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(UpgradeError::Key);
    }
    // What follows the head are frames: a body would be read as such.
    if headers.has("transfer-encoding") || headers.all("content-length").any(|length| length != b"0") {
        return Err(UpgradeError::Body);
    }
    let origin = match headers.has("origin") {
        true => Some(headers.one("origin").and_then(text).ok_or(UpgradeError::Origin)?),
        false => None,
    };
    if !origin_allowed(origin, host) {
        return Err(UpgradeError::Origin);
    }
    let extension = extension.map(|what| format!("Sec-WebSocket-Extensions: {what}\r\n")).unwrap_or_default();
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{extension}\r\n",
        accept_of(key)
    )
    .into_bytes())
}

/// The usual rule: no origin (no browser), the server's own, or one of `allowed`, each as a browser writes it
/// (`https://game.example`, `http://localhost:8000`), compared as a whole and without case. `"*"` allows all.
///
/// `secure`: the connection is TLS; then a page that was not does not count as the server's own. (Behind a proxy that
/// does the TLS, it is the other way round and allowed.)
pub fn origin_allowed(origin: Option<&str>, host: &str, secure: bool, allowed: &[impl AsRef<str>]) -> bool {
    let Some(origin) = origin else {
        return true;
    };
    let own = match origin.split_once("://") {
        Some((scheme, rest)) => {
            rest.eq_ignore_ascii_case(host)
                && (scheme.eq_ignore_ascii_case("https") || (!secure && scheme.eq_ignore_ascii_case("http")))
        }
        None => false,
    };
    own || allowed.iter().map(AsRef::as_ref).any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
}

/// A client's request; `key` is 16 fresh random bytes.
pub fn request(
    host: &str,
    target: &str,
    origin: Option<&str>,
    key: [u8; 16],
) -> Result<Vec<u8>, RequestError> {
    let printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if ![host, target].into_iter().chain(origin).all(printable) {
        return Err(RequestError);
    }
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    Ok(format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n{origin}\r\n",
        STANDARD.encode(key)
    )
    .into_bytes())
}

/// Whether a server's answer upgrades the request that had this key.
pub fn check_answer(head: &ResponseHead<'_>, key: [u8; 16]) -> Result<(), AnswerError> {
    let headers = &head.headers;
    if head.status != 101 {
        return Err(AnswerError::Status(head.status));
    }
    if !headers.lists("upgrade", "websocket") {
        return Err(AnswerError::Header("Upgrade"));
    }
    if !headers.lists("connection", "upgrade") {
        return Err(AnswerError::Header("Connection"));
    }
    if headers.one("sec-websocket-accept") != Some(accept_of(STANDARD.encode(key).as_bytes()).as_bytes()) {
        return Err(AnswerError::Header("Sec-WebSocket-Accept"));
    }
    // Nothing was offered, so nothing may be chosen.
    if headers.has("sec-websocket-extensions") || headers.has("sec-websocket-protocol") {
        return Err(AnswerError::Header("an extension or a subprotocol that was not offered"));
    }
    Ok(())
}

impl UpgradeError {
    /// The status that tells the client.
    pub fn status(self) -> u16 {
        self.line().0
    }

    /// The whole answer.
    pub fn response(self) -> Vec<u8> {
        let (status, reason, headers) = self.line();
        plain_response(status, reason, headers, &format!("{self}\n"))
    }

    fn line(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Method => (405, "Method Not Allowed", "Allow: GET\r\n"),
            Self::HttpVersion => (505, "HTTP Version Not Supported", ""),
            Self::Host | Self::Key | Self::Body => (400, "Bad Request", ""),
            // Its Connection line is joined with the one that closes: both tokens stand.
            Self::NotAnUpgrade => (426, "Upgrade Required", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
            Self::Version => (426, "Upgrade Required", "Sec-WebSocket-Version: 13\r\n"),
            Self::Origin => (403, "Forbidden", ""),
        }
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|value| !value.is_empty())
}

fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{parse_head, parse_response_head};
    use crate::packet::Decoded;

    const RIGHT: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
        Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn answer(request: &str) -> Result<String, UpgradeError> {
        let Ok(Decoded::Complete { item, .. }) = parse_head(request.as_bytes(), 4096) else {
            panic!("{request}")
        };
        accept(&item, None, |_, _| true).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_example_of_the_standard_and_nothing_that_was_offered() {
        assert_eq!(
            answer(RIGHT).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn case_and_lists_do_not_matter() {
        let firefox = RIGHT
            .replace("Connection: Upgrade", "connection: keep-alive, upgrade")
            .replace("Upgrade: websocket", "UPGRADE: WebSocket");
        assert!(answer(&firefox).is_ok());
    }

    #[test]
    fn wrong_requests_get_the_right_status() {
        use UpgradeError::*;
        for (from, to, error, status) in [
            ("GET ", "POST ", Method, 405),
            ("HTTP/1.1", "HTTP/1.0", HttpVersion, 505),
            ("Host: server.example.com\r\n", "", Host, 400),
            ("Host: server.example.com\r\n", "Host: a\r\nHost: b\r\n", Host, 400),
            ("Upgrade: websocket\r\n", "", NotAnUpgrade, 426),
            ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", NotAnUpgrade, 426),
            ("Connection: Upgrade", "Connection: close", NotAnUpgrade, 426),
            ("Version: 13", "Version: 8", Version, 426),
            ("Sec-WebSocket-Version: 13\r\n", "", Version, 426),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j", Key, 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "not base64!", Key, 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", Key, 400),
            ("Origin: http://example.com", "Content-Length: 5", Body, 400),
            ("Origin: http://example.com", "Transfer-Encoding: chunked", Body, 400),
            ("Origin: http://example.com", "Origin: a\r\nOrigin: b", Origin, 403),
        ] {
            assert_eq!(answer(&RIGHT.replacen(from, to, 1)), Err(error), "{from} -> {to}");
            let response = String::from_utf8(error.response()).unwrap();
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert_eq!(error.status(), status);
        }
        let old = String::from_utf8(Version.response()).unwrap();
        assert!(old.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn what_is_plain_http() {
        for (request, wants) in [
            (RIGHT.to_owned(), true),
            (RIGHT.replace("Upgrade: websocket", "X: y"), false),
            (RIGHT.replace("HTTP/1.1", "HTTP/1.0"), false),
        ] {
            let Ok(Decoded::Complete { item, .. }) = parse_head(request.as_bytes(), 4096) else { panic!() };
            assert_eq!(wants_upgrade(&item), wants);
        }
    }

    #[test]
    fn origins() {
        const HOST: &str = "game.example:7777";
        let allowed = ["https://friend.example", "http://localhost:8000"];
        for (origin, plain, tls) in [
            (None, true, true),
            (Some("http://game.example:7777"), true, false),
            (Some("https://game.example:7777"), true, true),
            (Some("HTTPS://Game.Example:7777"), true, true),
            (Some("https://friend.example"), true, true),
            (Some("https://FRIEND.example"), true, true),
            (Some("http://localhost:8000"), true, true),
            (Some("http://friend.example"), false, false),
            (Some("https://friend.example:444"), false, false),
            (Some("https://friend.example.evil.example"), false, false),
            (Some("https://evilfriend.example"), false, false),
            (Some("https://a.friend.example"), false, false),
            (Some("https://friend.example/"), false, false),
            (Some("https://friend.exampl"), false, false),
            (Some("http://game.example"), false, false),
            (Some("http://game.example:77777"), false, false),
            (Some("http://evil.example#game.example:7777"), false, false),
            (Some("http://x@game.example:7777"), false, false),
            (Some("ftp://game.example:7777"), false, false),
            (Some("null"), false, false),
            (Some("game.example:7777"), false, false),
            (Some("*"), false, false),
        ] {
            assert_eq!(origin_allowed(origin, HOST, false, &allowed), plain, "{origin:?}");
            assert_eq!(origin_allowed(origin, HOST, true, &allowed), tls, "{origin:?} over TLS");
            assert!(origin_allowed(origin, HOST, true, &["*"]));
        }
    }

    #[test]
    fn the_closure_decides_with_origin_and_host() {
        let Ok(Decoded::Complete { item, .. }) = parse_head(RIGHT.as_bytes(), 4096) else { panic!() };
        let refused = accept(&item, None, |origin, host| {
            assert_eq!((origin, host), (Some("http://example.com"), "server.example.com"));
            false
        });
        assert_eq!(refused, Err(UpgradeError::Origin));
    }

    #[test]
    fn both_roles_understand_each_other() {
        let key = *b"the sample nonce";
        let bytes = request("a:1", "/", Some("http://a:1"), key).unwrap();
        let Ok(Decoded::Complete { item, consumed }) = parse_head(&bytes, 4096) else { panic!() };
        assert_eq!(consumed, bytes.len());
        let bytes =
            accept(&item, None, |origin, host| origin_allowed(origin, host, false, &[""; 0])).unwrap();
        let Ok(Decoded::Complete { item, .. }) = parse_response_head(&bytes, 4096) else { panic!() };
        assert_eq!(check_answer(&item, key), Ok(()));
        assert_eq!(check_answer(&item, [0; 16]), Err(AnswerError::Header("Sec-WebSocket-Accept")));
    }

    #[test]
    fn answers_that_are_no_upgrade() {
        let right = answer(RIGHT).unwrap();
        for (from, to, error) in [
            ("101", "200", AnswerError::Status(200)),
            ("Upgrade: websocket", "X: y", AnswerError::Header("Upgrade")),
            ("Connection: Upgrade", "Connection: close", AnswerError::Header("Connection")),
            ("s3pPL", "s3pPX", AnswerError::Header("Sec-WebSocket-Accept")),
        ] {
            let bytes = right.replacen(from, to, 1);
            let Ok(Decoded::Complete { item, .. }) = parse_response_head(bytes.as_bytes(), 4096) else {
                panic!()
            };
            assert_eq!(check_answer(&item, *b"the sample nonce"), Err(error));
        }
        let chosen = right.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n");
        let Ok(Decoded::Complete { item, .. }) = parse_response_head(chosen.as_bytes(), 4096) else {
            panic!()
        };
        assert!(check_answer(&item, *b"the sample nonce").is_err());
    }

    #[test]
    fn no_line_can_be_smuggled_into_a_request() {
        for (host, target, origin) in [
            ("a\r\nX: y", "/", None),
            ("a", "/ HTTP/1.0\r\n", None),
            ("a", "/", Some("b c")),
            ("", "/", None),
        ] {
            assert_eq!(request(host, target, origin, [0; 16]), Err(RequestError));
        }
    }
}
