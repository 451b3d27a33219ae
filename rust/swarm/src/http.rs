//! Clients that get a page over and over: what wrk does, to compare with.

use std::io;
use std::sync::Arc;

use engine::event::Nanos;
use net::queue::Class;
use net::reactor::{Flush, Reactor, ReactorConfig, Read, Ready, Taken, Token};
use net::sys::monotonic_now;

use crate::plan::Plan;
use crate::run::{Place, Teller};
use crate::tally::{Tally, count};

/// A thread's clients.
pub(crate) struct Browsers {
    plan: Arc<Plan>,
    at: Place,
    reactor: Reactor,
    request: Vec<u8>,
    /// By the slot of a connection.
    pages: Vec<Option<Page>>,
    open: u32,
    again_at: Nanos,
    dirty: Vec<Token>,
    now: Nanos,
    tally: Tally,
    teller: Teller,
}

/// A connection, and the request that it waits for.
#[derive(Clone, Copy, Debug)]
struct Page {
    token: Token,
    /// When its connection was begun, then when the request was sent: at its own send, not at the beginning of the pass. None: not yet.
    since: Option<Nanos>,
    is_in: bool,
    /// The response's status, and how much of its body is still to come; None: the head is awaited.
    left: Option<(u16, u64)>,
}

const AGAIN_AFTER: Nanos = 100_000_000;
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 << 10;

impl Browsers {
    pub fn new(plan: Arc<Plan>, at: Place) -> io::Result<Self> {
        let (host, path) = plan.get.clone().unwrap_or_default();
        Ok(Self {
            reactor: Reactor::new(ReactorConfig::default())?,
            request: format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(),
            pages: Vec::new(),
            open: 0,
            again_at: 0,
            dirty: Vec::new(),
            now: monotonic_now(),
            tally: Tally::new(1),
            teller: Teller::new(plan.clone(), &at),
            at,
            plan,
        })
    }

    /// Gets pages to the end of the plan.
    pub fn play(&mut self) -> io::Result<()> {
        self.teller.begin();
        let end = self.at.started + self.plan.nanos();
        while self.now < end && !self.at.is_stopped() {
            self.connect()?;
            self.flush();
            if self.now >= self.teller.due() {
                self.tell();
            }
            self.reactor.wait(Some(end.min(self.teller.due()).min(self.now + AGAIN_AFTER)), false)?;
            self.now = monotonic_now();
            while let Some(ready) = self.reactor.next_ready() {
                match ready {
                    Ready::Connected(token) => {
                        self.tally.opened += 1;
                        self.tally.clients += 1;
                        if let Some(page) = self.page(token) {
                            page.is_in = true;
                            let took = page.since.take().map_or(0, |since| monotonic_now() - since);
                            self.tally.connecting.record(took);
                        }
                        self.ask(token);
                    }
                    Ready::Readable(token) => self.receive(token),
                    Ready::Writable(token) => self.dirty.push(token),
                    Ready::Accepted(_) | Ready::Foreign { .. } | Ready::Woken => {}
                }
            }
        }
        self.tell();
        Ok(())
    }

    /// As many as there should be now.
    fn connect(&mut self) -> io::Result<()> {
        let at = self.now.saturating_sub(self.at.started);
        let wanted =
            self.plan.clients_at(at).saturating_sub(self.at.number).div_ceil(self.plan.threads as u32);
        while self.open < wanted && self.again_at <= self.now {
            let token = match &self.plan.tls {
                Some((config, name)) => self.reactor.connect_tls(&self.plan.address, config, name)?,
                None => self.reactor.connect(&self.plan.address)?,
            };
            let place = token.slot as usize;
            if self.pages.len() <= place {
                self.pages.resize(place + 1, None);
            }
            self.pages[place] = Some(Page { token, since: Some(self.now), is_in: false, left: None });
            self.open += 1;
            self.tally.begun += 1;
        }
        Ok(())
    }

    fn page(&mut self, token: Token) -> Option<&mut Page> {
        self.pages.get_mut(token.slot as usize)?.as_mut().filter(|page| page.token == token)
    }

    fn ask(&mut self, token: Token) {
        let Some((queue, pool)) = self.reactor.queue(token) else { return };
        let request = &self.request;
        if queue.append(pool, Class::Reliable, 0, |bytes| bytes.extend_from_slice(request)).is_ok() {
            self.tally.actions[0].sent += 1;
            self.dirty.push(token);
        }
    }

    fn flush(&mut self) {
        for token in std::mem::take(&mut self.dirty) {
            if let Some(page) = self.page(token) {
                page.since.get_or_insert_with(monotonic_now);
            }
            if let Flush::Closed(_) = self.reactor.flush(token) {
                self.end(token, "reset");
            }
        }
    }

    fn receive(&mut self, token: Token) {
        let Some(Page { mut left, .. }) = self.page(token).copied() else { return };
        let read = self.reactor.read(token, |bytes, _, _| take(bytes, &mut left));
        match read {
            Read::Data { value: Ok(Some(status)), .. } => {
                let Some(page) = self.page(token) else { return };
                page.left = None;
                let took = page.since.take().map_or(0, |since| monotonic_now().saturating_sub(since));
                let tally = &mut self.tally.actions[0];
                tally.answered += 1;
                tally.latency.record(took);
                self.tally.latency.record(took);
                if status >= 400 {
                    count(&mut tally.errors, &status.to_string());
                }
                self.ask(token);
            }
            Read::Data { value: Ok(None), .. } => {
                if let Some(page) = self.page(token) {
                    page.left = left;
                }
            }
            Read::Data { value: Err(()), .. } => self.end(token, "no HTTP"),
            Read::Partial | Read::WouldBlock | Read::Gone => {}
            Read::Eof => self.end(token, "left"),
            Read::Error(_) => self.end(token, "reset"),
        }
    }

    fn end(&mut self, token: Token, why: &str) {
        let Some(Page { is_in, .. }) = self.page(token).copied() else { return };
        self.pages[token.slot as usize] = None;
        self.reactor.close(token);
        self.open -= 1;
        self.tally.clients -= u64::from(is_in);
        self.again_at = self.now + AGAIN_AFTER;
        let why = if is_in { why.to_owned() } else { format!("not let in: {why}") };
        count(&mut self.tally.ended, &why);
    }

    fn tell(&mut self) {
        let empty = Tally { clients: self.tally.clients, ..Tally::new(1) };
        let tally = std::mem::replace(&mut self.tally, empty);
        self.teller.tell(self.now, tally, self.reactor.stats());
    }
}

/// Takes a response: its status once it is whole.
fn take(bytes: &[u8], left: &mut Option<(u16, u64)>) -> (Taken, Result<Option<u16>, ()>) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let (length, status, body) = match *left {
        Some((status, body)) => (0, status, body),
        None => match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => {
                (length, head.code.unwrap_or(0), body_bytes(head.headers))
            }
            Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => {
                return (Taken { consumed: 0, needed: bytes.len() + 1 }, Ok(None));
            }
            _ => return (Taken { consumed: bytes.len(), needed: 0 }, Err(())),
        },
    };
    let here = body.min((bytes.len() - length) as u64);
    *left = Some((status, body - here));
    (Taken { consumed: length + here as usize, needed: 0 }, Ok((body == here).then_some(status)))
}

fn body_bytes(headers: &[httparse::Header<'_>]) -> u64 {
    let length = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok()).unwrap_or(0)
}
