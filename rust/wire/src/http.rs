//! As much HTTP/1 as a game server needs: a bounded head, and short answers.

use crate::packet::Decoded;

/// A head of this many bytes is enough for every browser.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The head of a request, borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// `GET`.
    pub method: &'a str,
    /// `/play?room=1`.
    pub target: &'a str,
    /// The x of HTTP/1.x: 0 or 1.
    pub minor_version: u8,
    /// All of them, in order.
    pub headers: Headers<'a>,
}

/// The head of a response, borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// 101, 200, 404.
    pub status: u16,
    /// All of them, in order.
    pub headers: Headers<'a>,
}

/// Header lines; names are compared without case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers<'a>(Vec<(&'a str, &'a [u8])>);

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No HTTP.
    #[error("not an HTTP/1 head")]
    Malformed,
    /// Over the cap, or over [`HEADERS_MAX`] lines.
    #[error("HTTP head over {max} bytes or {HEADERS_MAX} lines")]
    TooLarge {
        /// The cap.
        max: usize,
    },
    /// Neither 1.0 nor 1.1.
    #[error("HTTP version is neither 1.0 nor 1.1")]
    Version,
}

/// The most header lines.
pub const HEADERS_MAX: usize = 64;

/// Reads the head of a request.
pub fn parse_head(input: &[u8], max: usize) -> Result<Decoded<Head<'_>>, HttpError> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let consumed = match complete(request.parse(&input[..input.len().min(max)]), input, max)? {
        Decoded::Complete { consumed, .. } => consumed,
        Decoded::Incomplete { needed } => return Ok(Decoded::Incomplete { needed }),
    };
    let head = Head {
        method: request.method.unwrap_or_default(),
        target: request.path.unwrap_or_default(),
        minor_version: request.version.unwrap_or_default(),
        headers: Headers::of(request.headers),
    };
    Ok(Decoded::Complete { item: head, consumed })
}

/// Reads the head of a response.
pub fn parse_response_head(input: &[u8], max: usize) -> Result<Decoded<ResponseHead<'_>>, HttpError> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut lines);
    let consumed = match complete(response.parse(&input[..input.len().min(max)]), input, max)? {
        Decoded::Complete { consumed, .. } => consumed,
        Decoded::Incomplete { needed } => return Ok(Decoded::Incomplete { needed }),
    };
    let head =
        ResponseHead { status: response.code.unwrap_or_default(), headers: Headers::of(response.headers) };
    Ok(Decoded::Complete { item: head, consumed })
}

/// A whole response with a short text, after which the connection is closed.
///
/// `headers` are lines that end in CRLF, or empty.
pub fn plain_response(status: u16, reason: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl HttpError {
    /// The status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge { .. } => 431,
            Self::Version => 505,
        }
    }

    /// The whole answer.
    pub fn response(self) -> Vec<u8> {
        let reason = match self {
            Self::Malformed => "Bad Request",
            Self::TooLarge { .. } => "Request Header Fields Too Large",
            Self::Version => "HTTP Version Not Supported",
        };
        plain_response(self.status(), reason, "", &format!("{self}\n"))
    }
}

impl<'a> Headers<'a> {
    fn of(lines: &[httparse::Header<'a>]) -> Self {
        Self(lines.iter().map(|line| (line.name, line.value)).collect())
    }

    /// All lines.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.0.iter().copied()
    }

    /// The values of all lines of that name.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.iter().filter(move |line| line.0.eq_ignore_ascii_case(name)).map(|line| line.1.trim_ascii())
    }

    /// The value of the one line of that name; `None` when there is none, or more than one.
    pub fn one(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether there is a line of that name.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Whether `token` is in the comma-separated lists of that name, without regard to case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// What the parser's answer means under a cap.
fn complete(
    parsed: Result<httparse::Status<usize>, httparse::Error>,
    input: &[u8],
    max: usize,
) -> Result<Decoded<()>, HttpError> {
    match parsed {
        Ok(httparse::Status::Complete(consumed)) => Ok(Decoded::Complete { item: (), consumed }),
        Ok(httparse::Status::Partial) if input.len() < max => {
            Ok(Decoded::Incomplete { needed: input.len() + 1 })
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Err(HttpError::TooLarge { max })
        }
        Err(httparse::Error::Version) => Err(HttpError::Version),
        Err(_) => Err(HttpError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request() {
        let bytes = b"GET /play?a=1 HTTP/1.1\r\nHost: a:1\r\nConnection: keep-alive, Upgrade\r\nX: 1\r\nx: 2\r\n\r\nmore";
        for cut in 0..bytes.len() - 4 {
            assert_eq!(parse_head(&bytes[..cut], 1000), Ok(Decoded::Incomplete { needed: cut + 1 }));
        }
        let Ok(Decoded::Complete { item, consumed }) = parse_head(bytes, 1000) else { panic!() };
        assert_eq!(consumed, bytes.len() - 4);
        assert_eq!((item.method, item.target, item.minor_version), ("GET", "/play?a=1", 1));
        assert_eq!(item.headers.one("host"), Some(&b"a:1"[..]));
        assert_eq!((item.headers.one("x"), item.headers.one("y")), (None, None));
        assert!(item.headers.has("X") && !item.headers.has("y"));
        assert!(item.headers.lists("connection", "upgrade") && !item.headers.lists("connection", "up"));
    }

    #[test]
    fn what_is_no_request() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        for (bytes, status) in [
            (&b"\x00"[..], 400),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (long.as_bytes(), 431),
            (many.as_bytes(), 431),
        ] {
            let max = if bytes == many.as_bytes() { 10_000 } else { 100 };
            let error = parse_head(bytes, max).unwrap_err();
            assert_eq!(error.status(), status, "{}", String::from_utf8_lossy(bytes));
            assert!(error.response().starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
        }
    }

    #[test]
    fn the_cap_is_exact() {
        let bytes = b"GET / HTTP/1.1\r\n\r\n";
        assert!(matches!(parse_head(bytes, bytes.len()), Ok(Decoded::Complete { consumed: 18, .. })));
        assert_eq!(parse_head(bytes, bytes.len() - 1), Err(HttpError::TooLarge { max: 17 }));
        assert_eq!(parse_head(&bytes[..17], 17), Err(HttpError::TooLarge { max: 17 }));
    }

    #[test]
    fn a_response() {
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        let Ok(Decoded::Complete { item, .. }) = parse_response_head(bytes, 100) else { panic!() };
        assert_eq!((item.status, item.headers.one("upgrade")), (101, Some(&b"websocket"[..])));
    }

    #[test]
    fn a_plain_response() {
        assert_eq!(
            String::from_utf8(plain_response(405, "Method Not Allowed", "Allow: GET\r\n", "no\n")).unwrap(),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: close\r\nAllow: GET\r\n\r\nno\n"
        );
    }
}
