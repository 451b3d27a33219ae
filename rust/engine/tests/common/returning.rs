//! A client that comes back: it keeps what the server may not have seen, and counts what it has handled.
#![allow(dead_code, reason = "each test file uses its part")]

use engine::event::LinkId;
use engine::resume::{Unseen, is_counted, parse_seen};
use wire::handshake::{ClientHandshake, GsRequest, ResumeOffer, ResumeRequest, ServerAnswer};
use wire::message::{self, Message, MessageKind, Route};
use wire::packet::{self, BODY_BYTES_MAX, Decoded, PacketKind};

use super::Server;

/// A client whose connection is a pipe that the test cuts where it wants.
#[derive(Default)]
pub struct Returning {
    pub link: Option<LinkId>,
    pub token: Option<String>,
    pub seen: u64,
    pub unseen: Unseen,
    pub session: Option<u64>,
    /// Bodies of responses, by id, and of pushes, in the order in which they were handled.
    pub got: Vec<String>,
    /// So many times it went on, and so many times it was somebody new.
    pub resumed: usize,
    pub renewed: usize,
    pub last_id: u32,
    pub is_ready: bool,
    pub to_server: Vec<Vec<u8>>,
    pub from_server: Vec<u8>,
}

const BOUND: u32 = 1 << 20;

impl Returning {
    /// Opens a connection and says who it is.
    pub fn connect(&mut self, server: &mut Server) {
        self.link = Some(server.connect());
        (self.is_ready, self.to_server, self.from_server) = (false, Vec::new(), Vec::new());
        let resume = Some(ResumeRequest { token: self.token.clone(), seen: self.seen });
        let gs = Some(GsRequest { resume, ..GsRequest::default() });
        let hello = ClientHandshake { gs, ..ClientHandshake::parse(b"{}").unwrap() }.to_bytes();
        self.queue(PacketKind::Handshake, &hello);
    }

    pub fn request(&mut self, route: &str, body: &str) {
        self.last_id += 1;
        self.say(MessageKind::Request, self.last_id, route, body);
    }

    pub fn notify(&mut self, route: &str, body: &str) {
        self.say(MessageKind::Notify, 0, route, body);
    }

    pub fn say_seen(&mut self) {
        if self.is_ready {
            let body = self.seen.to_string();
            let message = encode(MessageKind::Notify, 0, "$seen", &body);
            self.queue(PacketKind::Data, &message);
        }
    }

    /// Packets that wait to be sent.
    pub fn outgoing(&self) -> usize {
        self.to_server.len()
    }

    /// What was sent and has not arrived.
    pub fn waiting(&self) -> Vec<u8> {
        self.to_server.concat()
    }

    /// The next packet reaches the server.
    pub fn send_one(&mut self, server: &mut Server) {
        if self.to_server.is_empty() {
            return;
        }
        let bytes = self.to_server.remove(0);
        let Some(link) = self.link else { return };
        let back = server.send(link, &bytes);
        self.from_server.extend(back);
    }

    /// Takes what the server has sent meanwhile out of its queue: it is on its way.
    pub fn collect(&mut self, server: &mut Server) {
        if let Some(link) = self.link {
            server.settle();
            let bytes = server.take(link);
            self.from_server.extend(bytes);
        }
    }

    /// The next packet reaches the client. False: none is on its way.
    pub fn receive_one(&mut self) -> bool {
        let Ok(Decoded::Complete { item, consumed }) = packet::decode(&self.from_server, BODY_BYTES_MAX)
        else {
            return false;
        };
        let (kind, body) = (item.kind, item.body.to_vec());
        self.from_server.drain(..consumed);
        match kind {
            PacketKind::Handshake => self.greeted(&body),
            PacketKind::Data => self.handle(&body),
            _ => {}
        }
        true
    }

    /// Everything both ways until nothing moves.
    pub fn run(&mut self, server: &mut Server) {
        loop {
            let mut moved = !self.to_server.is_empty();
            while !self.to_server.is_empty() {
                self.send_one(server);
            }
            self.collect(server);
            while self.receive_one() {
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// The connection is gone: what was on its way is lost.
    pub fn cut(&mut self) {
        (self.link, self.is_ready) = (None, false);
        (self.to_server, self.from_server) = (Vec::new(), Vec::new());
    }

    fn greeted(&mut self, body: &[u8]) {
        let answer = ServerAnswer::parse(body).unwrap();
        assert_eq!(answer.code, 200);
        let Some(ResumeOffer { token, seen, .. }) = answer.resume else { panic!("no token in {answer:?}") };
        self.token = Some(token);
        self.queue(PacketKind::HandshakeAck, b"");
        self.is_ready = true;
        match seen {
            Some(seen) => {
                assert_eq!(answer.session, self.session, "the session that it was");
                assert!(self.unseen.reaches(seen), "the server has seen {seen} of {}", self.unseen.sent());
                self.unseen.handle_seen(seen).unwrap();
                self.resumed += 1;
            }
            None if self.session.is_none() => {}
            None => {
                self.renewed += 1;
                (self.seen, self.unseen) = (0, Unseen::default());
            }
        }
        self.session = answer.session;
        let mut again = Vec::new();
        self.unseen.write(&mut again);
        let mut rest = &again[..];
        while let Some((packet, others)) = packet::first(rest) {
            self.to_server.push(packet.to_vec());
            rest = others;
        }
    }

    fn handle(&mut self, body: &[u8]) {
        let message = message::decode(body).unwrap();
        let text = String::from_utf8(message.body.to_vec()).unwrap();
        match (message.kind, message.route) {
            (MessageKind::Response, _) => {
                self.seen += 1;
                self.got.push(format!("{}={text}", message.id));
            }
            (_, Route::Name("$seen")) => {
                self.unseen.handle_seen(parse_seen(message.body).unwrap()).unwrap();
            }
            (_, Route::Name(route)) => {
                self.seen += u64::from(is_counted(route));
                self.got.push(format!("{route}:{text}"));
            }
            _ => panic!("{message:?}"),
        }
    }

    fn say(&mut self, kind: MessageKind, id: u32, route: &str, body: &str) {
        let message = encode(kind, id, route, body);
        let header = packet::header(PacketKind::Data, message.len());
        self.unseen.keep(&[&header, &message], BOUND);
        if self.is_ready {
            self.queue(PacketKind::Data, &message);
        }
    }

    fn queue(&mut self, kind: PacketKind, body: &[u8]) {
        self.to_server.push([&packet::header(kind, body.len())[..], body].concat());
    }
}

fn encode(kind: MessageKind, id: u32, route: &str, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let route = Route::Name(route);
    let message = Message { kind, id, route, body: body.as_bytes(), error: false, compressed: false };
    message::encode(&message, &mut out).unwrap();
    out
}
