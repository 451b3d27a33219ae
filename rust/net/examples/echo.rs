//! The smallest server on the reactor: gives back messages of 64 bytes, without any framing.
//!
//! `cargo run --release -p net --example echo -- 127.0.0.1:7000`. To see what a message costs: `strace -c -f -p` and
//! `perf record -p` while something talks to it.

use net::address::Address;
use net::admission::Admission;
use net::listener::Listener;
use net::queue::Class;
use net::reactor::{Flush, Reactor, ReactorConfig, Read, Ready, Taken, Token};
use std::error::Error;
use std::sync::Arc;

const MESSAGE_BYTES: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    net::sys::raise_descriptor_limit()?;
    let listener = Arc::new(Listener::bind(&Address::Tcp(address.parse()?))?);
    println!("listening at {}", listener.local_address());
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    reactor.listen(listener, Arc::new(Admission::new(0, 0, None)), None)?;
    let mut to_flush = Vec::new();
    loop {
        reactor.wait(None, false)?;
        while let Some(ready) = reactor.next_ready() {
            match ready {
                Ready::Readable(token) => echo(&mut reactor, token, &mut to_flush),
                Ready::Writable(token) => to_flush.push(token),
                Ready::Accepted(_) | Ready::Connected(_) | Ready::Foreign { .. } | Ready::Woken => {}
            }
        }
        for token in to_flush.drain(..) {
            if let Flush::Closed(_) = reactor.flush(token) {
                reactor.close(token);
            }
        }
    }
}

fn echo(reactor: &mut Reactor, token: Token, to_flush: &mut Vec<Token>) {
    let read = reactor.read(token, |bytes, queue, pool| {
        let mut appended = Ok(());
        let mut consumed = 0;
        // One by one, as a server with messages has to.
        for message in bytes.chunks_exact(MESSAGE_BYTES) {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(message);
            appended = appended.and(queue.append_sized(pool, Class::Reliable, 0, MESSAGE_BYTES, write));
            consumed += MESSAGE_BYTES;
        }
        let needed = if consumed == bytes.len() { 0 } else { MESSAGE_BYTES };
        (Taken { consumed, needed }, appended)
    });
    match read {
        Read::Data { value: Ok(()), .. } => to_flush.push(token),
        Read::Partial | Read::WouldBlock => {}
        Read::Data { value: Err(_), .. } | Read::Eof | Read::Error(_) | Read::Gone => {
            reactor.close(token);
        }
    }
}
