//! A WebSocket without its socket, both roles: bytes in, whole messages and bytes to send out. For tools, bots and
//! tests; a server's own connections read frames straight from their buffers.

use std::collections::VecDeque;
use std::{mem, str};

use crate::http::{self, parse_head, parse_response_head};
use crate::packet::{Decoded, grow};
use crate::websocket::frame::{
    CLOSE_ABNORMAL, CLOSE_NO_CODE, CONTROL_BYTES_MAX, Fragments, OpCode, Role, WsError, decode_close,
    decode_frame, encode_close, encode_frame, may_be_sent,
};
use crate::websocket::upgrade::{self, RequestError, origin_allowed};

/// What happened on a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The upgrade is done.
    Opened {
        /// What the client asked for: `/play`.
        target: String,
    },
    /// There will be no WebSocket.
    Refused {
        /// As HTTP has it; 0 when the peer spoke no HTTP at all.
        status: u16,
        /// Why.
        reason: String,
    },
    /// A message of text.
    Text(String),
    /// A message of bytes.
    Binary(Vec<u8>),
    /// A ping; its pong is among the bytes to send.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The last event: nothing more is read.
    Closed {
        /// The peer's code; 1005 when it gave none, 1006 when it went without a word, ours when it broke a rule.
        code: u16,
        /// The peer's reason, or the rule that it broke.
        reason: String,
        /// The peer broke a rule.
        error: bool,
    },
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The upgrade is not done yet.
    #[error("the WebSocket is not open yet")]
    NotOpen,
    /// A close frame has been sent.
    #[error("the WebSocket is closed")]
    Closed,
    /// A ping or pong over 125 bytes.
    #[error("a ping or pong carries at most 125 bytes, not {0}")]
    TooLong(usize),
    /// A close code that must not be sent.
    #[error("a close code is 1000 to 1003, 1007 to 1014 or 3000 to 4999, not {0}")]
    Code(u16),
}

/// Gives a fresh random mask for each frame that a client sends.
pub type Masks = Box<dyn FnMut() -> [u8; 4] + Send + Sync>;

/// One WebSocket.
pub struct WebSocket {
    role: Role,
    state: State,
    /// What a client has asked with.
    key: [u8; 16],
    masks: Option<Masks>,
    allowed_origins: Vec<String>,
    message_bytes_max: usize,
    /// Of the head or frame that is not complete yet.
    tail: Vec<u8>,
    fragments: Fragments,
    message: Vec<u8>,
    /// So much of a message of text is known to be UTF-8.
    text_checked: usize,
    events: VecDeque<Event>,
    out: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Awaits the head of the request, or of the response.
    Upgrading,
    Open,
    /// Has sent a close frame, and awaits the peer's.
    Closing,
    Closed,
}

impl WebSocket {
    /// A server's end, from the first byte of the request. Pages of other origins than the server's own and
    /// `allowed_origins` are refused.
    pub fn server(message_bytes_max: usize, allowed_origins: Vec<String>) -> Self {
        Self { allowed_origins, ..Self::new(Role::Server, State::Upgrading, message_bytes_max, None) }
    }

    /// A client's end; its request is among the bytes to send. `key` is 16 random bytes.
    pub fn client(
        message_bytes_max: usize,
        host: &str,
        target: &str,
        origin: Option<&str>,
        key: [u8; 16],
        masks: Masks,
    ) -> Result<Self, RequestError> {
        let out = upgrade::request(host, target, origin, key)?;
        Ok(Self { key, out, ..Self::new(Role::Client, State::Upgrading, message_bytes_max, Some(masks)) })
    }

    /// Either end of a WebSocket that is open already; a client gives masks.
    pub fn opened(role: Role, message_bytes_max: usize, masks: Option<Masks>) -> Self {
        Self::new(role, State::Open, message_bytes_max, masks)
    }

    fn new(role: Role, state: State, message_bytes_max: usize, masks: Option<Masks>) -> Self {
        Self {
            role,
            state,
            key: [0; 16],
            masks,
            allowed_origins: Vec::new(),
            message_bytes_max,
            tail: Vec::new(),
            fragments: Fragments::default(),
            message: Vec::new(),
            text_checked: 0,
            events: VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// Takes bytes of the peer. What they break is an event; what follows [`Event::Closed`] is ignored.
    pub fn handle_bytes(&mut self, mut input: &[u8]) {
        while !input.is_empty() && self.state != State::Closed {
            if self.state == State::Upgrading {
                self.take_head(&mut input);
            } else if let Err(error) = self.take_frame(&mut input) {
                self.fail(error);
            }
        }
        if self.state == State::Closed {
            self.tail = Vec::new();
            self.message = Vec::new();
        }
    }

    /// The peer sends nothing more.
    pub fn handle_eof(&mut self) {
        match self.state {
            State::Closed => {}
            State::Upgrading => {
                self.state = State::Closed;
                self.events
                    .push_back(Event::Refused { status: 0, reason: "the connection was cut".to_owned() });
            }
            State::Open | State::Closing => self.closed(CLOSE_ABNORMAL, "the connection was cut", false),
        }
    }

    /// Sends a message of text.
    pub fn send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.send(OpCode::Text, text.as_bytes())
    }

    /// Sends a message of bytes.
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.send(OpCode::Binary, bytes)
    }

    /// Sends a ping of at most 125 bytes.
    pub fn send_ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send(OpCode::Ping, payload)
    }

    /// Sends a pong that nobody asked for, of at most 125 bytes. (Pings are answered without this.)
    pub fn send_pong(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send(OpCode::Pong, payload)
    }

    /// Sends a close frame; the event comes when the peer has answered it.
    pub fn send_close(&mut self, code: u16, reason: &str) -> Result<(), SendError> {
        if !may_be_sent(code) {
            return Err(SendError::Code(code));
        }
        let mut payload = Vec::new();
        encode_close(code, reason, &mut payload);
        self.send(OpCode::Close, &payload)?;
        self.state = State::Closing;
        Ok(())
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The bytes to send since the last call.
    pub fn poll_transmit(&mut self) -> Vec<u8> {
        mem::take(&mut self.out)
    }

    /// Nothing more is read or sent: when the bytes to send have left, close the socket.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The upgrade is done and no close frame was seen or sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Bytes of frames and messages that are not complete: at most the cap, a frame's header and a ping, or an HTTP
    /// head.
    pub fn buffered(&self) -> usize {
        self.tail.len() + self.message.len()
    }

    fn take_head(&mut self, input: &mut &[u8]) {
        let room = http::HEAD_BYTES_MAX - self.tail.len();
        let taken = input.len().min(room);
        self.tail.extend_from_slice(&input[..taken]);
        let tail = mem::take(&mut self.tail);
        match self.read_head(&tail) {
            Some(consumed) => {
                // The head was not complete before: what is behind it came with this input.
                let behind = tail.len() - consumed;
                *input = &input[taken - behind..];
            }
            None => {
                *input = &input[taken..];
                if self.state == State::Upgrading {
                    self.tail = tail;
                }
            }
        }
    }

    /// Opens, or refuses and closes. `None`: nothing behind these bytes matters now.
    fn read_head(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.role {
            Role::Server => match parse_head(bytes, http::HEAD_BYTES_MAX) {
                Ok(Decoded::Incomplete { .. }) => None,
                Ok(Decoded::Complete { item, consumed }) => {
                    let allowed = |origin: Option<&str>, host: &str| {
                        origin_allowed(origin, host, false, &self.allowed_origins)
                    };
                    match upgrade::accept(&item, None, allowed) {
                        Ok(response) => {
                            self.out.extend_from_slice(&response);
                            self.open(item.target);
                            Some(consumed)
                        }
                        Err(error) => self.refuse(error.status(), &error.to_string(), &error.response()),
                    }
                }
                Err(error) => self.refuse(error.status(), &error.to_string(), &error.response()),
            },
            Role::Client => match parse_response_head(bytes, http::HEAD_BYTES_MAX) {
                Ok(Decoded::Incomplete { .. }) => None,
                Ok(Decoded::Complete { item, consumed }) => match upgrade::check_answer(&item, self.key) {
                    Ok(()) => {
                        self.open("");
                        Some(consumed)
                    }
                    Err(error) => self.refuse(item.status, &error.to_string(), b""),
                },
                Err(error) => self.refuse(0, &error.to_string(), b""),
            },
        }
    }

    fn open(&mut self, target: &str) {
        self.state = State::Open;
        self.events.push_back(Event::Opened { target: target.to_owned() });
    }

    fn refuse(&mut self, status: u16, reason: &str, response: &[u8]) -> Option<usize> {
        self.state = State::Closed;
        self.out.extend_from_slice(response);
        self.events.push_back(Event::Refused { status, reason: reason.to_owned() });
        None
    }

    /// Moves bytes from `input` until the tail is one frame, and handles that.
    fn take_frame(&mut self, input: &mut &[u8]) -> Result<(), WsError> {
        loop {
            let room = self.message_bytes_max - self.message.len();
            let needed = match decode_frame(&mut self.tail, self.role, room)? {
                Decoded::Incomplete { needed } => needed,
                Decoded::Complete { item: frame, .. } => {
                    let (fin, opcode, payload_bytes) = (frame.fin, frame.opcode, frame.payload.len());
                    let mut tail = mem::take(&mut self.tail);
                    let start = tail.len() - payload_bytes;
                    let result = self.handle_frame(fin, opcode, &tail[start..]);
                    tail.clear();
                    self.tail = tail;
                    return result;
                }
            };
            let taken = input.len().min(needed - self.tail.len());
            grow(&mut self.tail, taken, needed);
            self.tail.extend_from_slice(&input[..taken]);
            *input = &input[taken..];
            if self.tail.len() < needed {
                // Judge the bytes that are there.
                decode_frame(&mut self.tail, self.role, room)?;
                return Ok(());
            }
        }
    }

    fn handle_frame(&mut self, fin: bool, opcode: OpCode, payload: &[u8]) -> Result<(), WsError> {
        match self.fragments.check(opcode, fin)? {
            OpCode::Close => {
                let (code, reason) = decode_close(payload)?;
                if self.state == State::Open {
                    let answer = if code == CLOSE_NO_CODE { &[][..] } else { &payload[..2] };
                    self.write(OpCode::Close, answer);
                }
                self.closed(code, reason, false);
            }
            OpCode::Ping => {
                if self.state == State::Open {
                    self.write(OpCode::Pong, payload);
                }
                self.events.push_back(Event::Ping(payload.to_vec()));
            }
            OpCode::Pong => self.events.push_back(Event::Pong(payload.to_vec())),
            message => {
                let needed = self.message.len() + payload.len();
                grow(&mut self.message, payload.len(), if fin { needed } else { self.message_bytes_max });
                self.message.extend_from_slice(payload);
                if message == OpCode::Text {
                    self.check_text(fin)?;
                }
                if fin {
                    self.end_message(message)?;
                }
            }
        }
        Ok(())
    }

    /// A character may be cut by the end of a frame, but not by the end of the message.
    fn check_text(&mut self, fin: bool) -> Result<(), WsError> {
        match str::from_utf8(&self.message[self.text_checked..]) {
            Ok(_) => self.text_checked = self.message.len(),
            Err(error) if error.error_len().is_some() || fin => return Err(WsError::NotUtf8),
            Err(error) => self.text_checked += error.valid_up_to(),
        }
        Ok(())
    }

    fn end_message(&mut self, opcode: OpCode) -> Result<(), WsError> {
        let message = mem::take(&mut self.message);
        self.text_checked = 0;
        self.events.push_back(match opcode {
            OpCode::Text => Event::Text(String::from_utf8(message).map_err(|_| WsError::NotUtf8)?),
            _ => Event::Binary(message),
        });
        Ok(())
    }

    fn fail(&mut self, error: WsError) {
        let reason = error.to_string();
        if self.state == State::Open {
            let mut payload = Vec::new();
            encode_close(error.close_code(), &reason, &mut payload);
            self.write(OpCode::Close, &payload);
        }
        self.closed(error.close_code(), &reason, true);
    }

    fn closed(&mut self, code: u16, reason: &str, error: bool) {
        self.state = State::Closed;
        self.events.push_back(Event::Closed { code, reason: reason.to_owned(), error });
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), SendError> {
        match self.state {
            State::Upgrading => Err(SendError::NotOpen),
            State::Closing | State::Closed => Err(SendError::Closed),
            State::Open if opcode.is_control() && payload.len() > CONTROL_BYTES_MAX => {
                Err(SendError::TooLong(payload.len()))
            }
            State::Open => {
                self.write(opcode, payload);
                Ok(())
            }
        }
    }

    fn write(&mut self, opcode: OpCode, payload: &[u8]) {
        let mask = self.masks.as_mut().map(|masks| masks());
        encode_frame(opcode, true, mask, payload, &mut self.out);
    }
}

impl std::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket")
            .field("role", &self.role)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const MAX: usize = 1000;

    fn client() -> WebSocket {
        WebSocket::client(MAX, "a:1", "/play", None, *b"the sample nonce", Box::new(|| MASK)).unwrap()
    }

    /// Carries bytes both ways until nobody has more.
    fn exchange(client: &mut WebSocket, server: &mut WebSocket) {
        loop {
            let (up, down) = (client.poll_transmit(), server.poll_transmit());
            if up.is_empty() && down.is_empty() {
                return;
            }
            server.handle_bytes(&up);
            client.handle_bytes(&down);
        }
    }

    fn events(socket: &mut WebSocket) -> Vec<Event> {
        std::iter::from_fn(|| socket.poll_event()).collect()
    }

    fn pair() -> (WebSocket, WebSocket) {
        let (mut client, mut server) = (client(), WebSocket::server(MAX, Vec::new()));
        exchange(&mut client, &mut server);
        assert_eq!(events(&mut client), [Event::Opened { target: String::new() }]);
        assert_eq!(events(&mut server), [Event::Opened { target: "/play".to_owned() }]);
        (client, server)
    }

    fn frame(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(opcode, fin, Some(MASK), payload, &mut out);
        out
    }

    fn closed(code: u16, reason: &str, error: bool) -> Event {
        Event::Closed { code, reason: reason.to_owned(), error }
    }

    #[test]
    fn a_conversation() {
        let (mut client, mut server) = pair();
        client.send_text("né").unwrap();
        client.send_binary(&[7; 300]).unwrap();
        client.send_ping(b"p").unwrap();
        server.send_binary(b"").unwrap();
        exchange(&mut client, &mut server);
        assert_eq!(
            events(&mut server),
            [Event::Text("né".to_owned()), Event::Binary(vec![7; 300]), Event::Ping(b"p".to_vec())]
        );
        assert_eq!(events(&mut client), [Event::Binary(Vec::new()), Event::Pong(b"p".to_vec())]);
        client.send_close(1000, "bye").unwrap();
        assert!(!client.is_open() && !client.is_closed());
        assert_eq!(client.send_text("more"), Err(SendError::Closed));
        exchange(&mut client, &mut server);
        assert_eq!(events(&mut server), [closed(1000, "bye", false)]);
        assert_eq!(events(&mut client), [closed(1000, "", false)]);
        assert!(client.is_closed() && server.is_closed());
    }

    #[test]
    fn bytes_one_at_a_time_mean_the_same() {
        let mut bytes = client().poll_transmit();
        bytes.extend(frame(OpCode::Text, false, b"n\xc3"));
        bytes.extend(frame(OpCode::Ping, true, b"now"));
        bytes.extend(frame(OpCode::Continuation, false, b""));
        bytes.extend(frame(OpCode::Continuation, true, b"\xa9"));
        bytes.extend(frame(OpCode::Close, true, b""));
        bytes.extend(frame(OpCode::Binary, true, b"ignored"));
        let expected = [
            Event::Opened { target: "/play".to_owned() },
            Event::Ping(b"now".to_vec()),
            Event::Text("né".to_owned()),
            closed(1005, "", false),
        ];
        let mut whole = WebSocket::server(MAX, Vec::new());
        whole.handle_bytes(&bytes);
        assert_eq!(events(&mut whole), expected);
        let mut cut = WebSocket::server(MAX, Vec::new());
        bytes.iter().for_each(|byte| cut.handle_bytes(std::slice::from_ref(byte)));
        assert_eq!(events(&mut cut), expected);
        let sent = whole.poll_transmit();
        assert!(sent.ends_with(&hex("8a 03 6e 6f 77 88 00")));
        assert_eq!(cut.poll_transmit(), sent);
    }

    #[test]
    fn a_message_in_pieces_is_bounded_as_a_whole() {
        let mut server = WebSocket::opened(Role::Server, 10, None);
        server.handle_bytes(&frame(OpCode::Binary, false, b"12345"));
        server.handle_bytes(&frame(OpCode::Continuation, false, b"67890"));
        assert_eq!((server.buffered(), server.poll_event()), (10, None));
        server.handle_bytes(&frame(OpCode::Continuation, true, b"1")[..2]);
        let Some(Event::Closed { code: 1009, error: true, .. }) = server.poll_event() else { panic!() };
        assert_eq!(server.poll_transmit()[..4], hex("88 34 03 f1"));
        assert_eq!(server.buffered(), 0);
    }

    #[test]
    fn broken_text_fails_as_soon_as_it_is_known() {
        let mut server = WebSocket::opened(Role::Server, MAX, None);
        server.handle_bytes(&frame(OpCode::Text, false, b"ok \xc3("));
        assert!(matches!(server.poll_event(), Some(Event::Closed { code: 1007, error: true, .. })));
        let mut server = WebSocket::opened(Role::Server, MAX, None);
        server.handle_bytes(&frame(OpCode::Text, true, b"cut \xc3"));
        assert!(matches!(server.poll_event(), Some(Event::Closed { code: 1007, error: true, .. })));
    }

    #[test]
    fn refusals_on_both_sides() {
        let mut server = WebSocket::server(MAX, Vec::new());
        server.handle_bytes(b"POST / HTTP/1.1\r\nHost: a\r\n\r\nbody");
        assert!(matches!(server.poll_event(), Some(Event::Refused { status: 405, .. })));
        let mut client = client();
        client.handle_bytes(&server.poll_transmit());
        assert!(matches!(client.poll_event(), Some(Event::Refused { status: 405, .. })));
        assert!(client.is_closed() && server.is_closed());
        assert_eq!(server.send_text(""), Err(SendError::Closed));
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_cap() {
        let mut server = WebSocket::server(MAX, Vec::new());
        server.handle_bytes(b"GET / HTTP/1.1\r\nX: ");
        for _ in 0..http::HEAD_BYTES_MAX {
            server.handle_bytes(b"xx");
            assert!(server.buffered() <= http::HEAD_BYTES_MAX);
        }
        assert!(matches!(server.poll_event(), Some(Event::Refused { status: 431, .. })));
        assert!(server.poll_transmit().starts_with(b"HTTP/1.1 431 "));
    }

    #[test]
    fn a_cut_connection() {
        let (mut client, mut server) = pair();
        server.handle_eof();
        assert_eq!(events(&mut server), [closed(1006, "the connection was cut", false)]);
        client.send_close(4000, "").unwrap();
        client.handle_eof();
        client.handle_eof();
        assert_eq!(events(&mut client), [closed(1006, "the connection was cut", false)]);
    }

    #[test]
    fn what_cannot_be_sent() {
        assert_eq!(client().send_text(""), Err(SendError::NotOpen));
        let (mut client, _) = pair();
        assert_eq!(client.send_ping(&[0; 126]), Err(SendError::TooLong(126)));
        assert_eq!(client.send_close(1006, ""), Err(SendError::Code(1006)));
        assert!(client.is_open());
    }
}
