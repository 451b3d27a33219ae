//! One connection's socket: what it has received and not yet used, and what it has still to send.

use crate::address::Peer;
use crate::admission::Admitted;
use crate::pool::{Block, Pool};
use crate::queue::SendQueue;
use crate::reactor::{Flush, Read, Taken};
use crate::sys::{self, Interest};
use crate::tls::Tls;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use std::num::{NonZeroU16, NonZeroU32};

/// Everything that an idle connection costs in user memory, beside what its caller keeps.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    /// What epoll watches the descriptor for; `None`: it is not watched at all.
    pub(crate) watched: Option<Interest>,
    /// It is watched by the epoll of those that may be told of late.
    pub(crate) late: bool,
    pub(crate) paused: bool,
    pub(crate) ended: bool,
    pub(crate) blocked: bool,
    pub(crate) connecting: bool,
    pub(crate) lingering: bool,
    /// TLS told the end of the stream together with its last bytes: the next read tells it to the caller.
    pub(crate) end_due: bool,
    /// What is queued can only go once TLS has agreed on its keys.
    pub(crate) awaits_handshake: bool,
    /// Which listener accepted it, counted from 1.
    pub(crate) listener: Option<NonZeroU16>,
    tail: Option<Tail>,
    pub(crate) queue: SendQueue,
    pub(crate) tls: Option<Box<Tls>>,
    /// Who is at the other end; its place is free once the socket is gone.
    pub(crate) admitted: Admitted,
}

/// What was received and not used.
#[derive(Debug)]
struct Tail {
    block: Block,
    /// So much of the block is done with.
    start: u32,
    /// So many bytes make the next complete item. Never 0, so that no tail costs no more than a tail.
    needed: NonZeroU32,
}

impl Tail {
    fn new(block: Block, start: usize, needed: usize) -> Self {
        Self {
            block,
            start: length(start),
            needed: NonZeroU32::new(length(needed)).unwrap_or(NonZeroU32::MIN),
        }
    }

    fn waiting(&self) -> &[u8] {
        &self.block[self.start as usize..]
    }

    /// Moves what waits to the block's beginning.
    fn into_block(self) -> Block {
        let mut block = self.block;
        block.drain(..self.start as usize);
        block
    }

    fn is_complete(&self) -> bool {
        let waiting = self.waiting().len();
        waiting > 0 && self.needed.get() as usize <= waiting
    }
}

/// Memory that all sockets of a reactor receive into, one after the other.
#[derive(Debug)]
pub(crate) struct Scratch {
    received: Box<[u8]>,
    // Grows when the first TLS connection needs it.
    decrypted: Vec<u8>,
    /// What went over the network, of all these sockets: 16 bytes less in each.
    pub(crate) traffic: Traffic,
}

/// Bytes received from and handed to the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            received: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            decrypted: Vec::new(),
            traffic: Traffic::default(),
        }
    }
}

impl Socket {
    pub(crate) fn new(fd: OwnedFd, admitted: Admitted, queue_bytes_max: usize) -> Self {
        Self {
            fd,
            watched: None,
            late: false,
            paused: false,
            ended: false,
            blocked: false,
            connecting: false,
            lingering: false,
            end_due: false,
            awaits_handshake: false,
            listener: None,
            tail: None,
            queue: SendQueue::new(queue_bytes_max),
            tls: None,
            admitted,
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Peer {
        self.admitted.peer()
    }

    /// One receive, then `f` on all that is not yet used. While complete items wait in the tail, `f` gets those and
    /// nothing is received: so a peer that sends faster than we handle waits in its own buffers, not in ours.
    #[inline]
    pub(crate) fn read<R>(
        &mut self,
        scratch: &mut Scratch,
        pool: &Pool,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        if self.tail.is_some() || self.tls.is_some() {
            return self.read_rare(scratch, pool, f);
        }
        let received = match sys::receive(&self.fd, &mut scratch.received) {
            Ok(0) => return self.end(),
            Ok(received) => received,
            Err(error) => return failed(error),
        };
        scratch.traffic.bytes_in += received as u64;
        self.deliver(&mut scratch.received[..received], pool, f)
    }

    /// `f` on what the tail holds, if that is complete items.
    pub(crate) fn pending<R>(
        &mut self,
        pool: &Pool,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        if !self.has_pending() {
            return Read::WouldBlock;
        }
        let Some(Tail { mut block, start, .. }) = self.tail.take() else { return Read::WouldBlock };
        let start = start as usize;
        let (taken, value) = f(&mut block[start..], &mut self.queue, pool);
        Read::Data { value, pending: self.keep_tail(block, start, taken, pool) }
    }

    /// Sends what is queued, as much as the socket takes.
    #[inline]
    pub(crate) fn flush(&mut self, traffic: &mut Traffic) -> Flush {
        if self.tls.is_some() {
            return self.flush_tls(traffic);
        }
        while let Some((piece, alone)) = self.queue.front() {
            let len = piece.len();
            let (asked, sent) = if alone {
                (len, sys::send(&self.fd, piece))
            } else {
                let mut pieces = [IoSlice::new(&[]); PIECES_PER_SEND];
                let filled = self.queue.slices(&mut pieces);
                let pieces = &pieces[..filled];
                (pieces.iter().map(|piece| piece.len()).sum(), sys::send_vectored(&self.fd, pieces))
            };
            match sent {
                Ok(bytes) => {
                    traffic.bytes_out += bytes as u64;
                    self.queue.advance(bytes);
                    if bytes < asked {
                        return Flush::Blocked;
                    }
                }
                Err(Errno::AGAIN) => return Flush::Blocked,
                Err(error) => return Flush::Closed(error.into()),
            }
        }
        Flush::Done
    }

    /// Whether bytes may be sent past the queue.
    #[inline]
    pub(crate) fn is_clear(&self) -> bool {
        self.queue.is_empty() && self.tls.is_none() && !self.connecting && !self.lingering
    }

    /// Sends past the queue, as much as the socket takes.
    #[inline]
    pub(crate) fn send(&self, bytes: &[u8], traffic: &mut Traffic) -> io::Result<usize> {
        match sys::send(&self.fd, bytes) {
            Ok(sent) => {
                traffic.bytes_out += sent as u64;
                Ok(sent)
            }
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Speaks TLS from here on; what the tail holds is its beginning. An error is that of the handshake.
    pub(crate) fn start_tls(&mut self, tls: Tls, scratch: &mut Scratch, pool: &Pool) -> io::Result<()> {
        let tls = self.tls.insert(Box::new(tls));
        let Some(tail) = self.tail.take() else { return Ok(()) };
        scratch.decrypted.clear();
        self.end_due = tls.decrypt(tail.waiting(), &mut scratch.decrypted)?;
        if !scratch.decrypted.is_empty() {
            let mut block = pool.take(scratch.decrypted.len());
            block.extend_from_slice(&scratch.decrypted);
            // Unknown to the caller until now, so as good as complete.
            self.tail = Some(Tail::new(block, 0, 1));
        }
        Ok(())
    }

    /// Says that we will send no more.
    pub(crate) fn shutdown_write(&mut self, traffic: &mut Traffic) {
        if let Some(tls) = &mut self.tls {
            tls.end();
            let _ = self.flush_tls(traffic); // the peer sees the end of the stream in any case
        }
        sys::shutdown_write(&self.fd);
    }

    /// Receives and forgets. Says whether the stream has ended.
    pub(crate) fn discard(&mut self, scratch: &mut Scratch) -> bool {
        // Twice, and not until there is nothing left: a peer that never stops must not keep us here.
        for _ in 0..2 {
            match sys::receive(&self.fd, &mut scratch.received) {
                Ok(0) => return true,
                Ok(received) => scratch.traffic.bytes_in += received as u64,
                Err(error) => return error != Errno::AGAIN,
            }
        }
        false
    }

    /// Gives back everything that is on loan.
    pub(crate) fn drop_buffers(&mut self) {
        self.tail = None;
        self.queue.clear();
    }

    /// Whether complete items wait in the tail.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.tail.as_ref().is_some_and(Tail::is_complete)
    }

    /// What the socket has to be watched for now.
    pub(crate) fn wanted(&self) -> Interest {
        Interest {
            read: self.lingering || !self.connecting && !self.paused && !self.ended,
            write: self.blocked || self.connecting,
        }
    }

    /// The paths that a connection takes whose last read ended within an item, or that speaks TLS.
    fn read_rare<R>(
        &mut self,
        scratch: &mut Scratch,
        pool: &Pool,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        if self.has_pending() {
            return self.pending(pool, f);
        }
        if self.end_due || self.ended {
            return self.end();
        }
        let waiting = self.tail.as_ref().map_or(0, |tail| tail.waiting().len());
        if waiting <= JOINED_MAX {
            self.read_joining(waiting, scratch, pool, f)
        } else {
            self.read_appending(scratch, pool, f)
        }
    }

    /// With little in the tail: it is copied in front of what comes, so that one receive can bring much.
    fn read_joining<R>(
        &mut self,
        waiting: usize,
        scratch: &mut Scratch,
        pool: &Pool,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        let (held, needed) = match &self.tail {
            Some(tail) => (tail.waiting(), tail.needed.get() as usize),
            None => (&[][..], 0),
        };
        let all = if let Some(tls) = &mut self.tls {
            let received = match sys::receive(&self.fd, &mut scratch.received) {
                Ok(0) => return self.cut_off(),
                Ok(received) => received,
                Err(error) => return failed(error),
            };
            scratch.traffic.bytes_in += received as u64;
            scratch.decrypted.clear();
            scratch.decrypted.extend_from_slice(held);
            match tls.decrypt(&scratch.received[..received], &mut scratch.decrypted) {
                Ok(ended) => self.end_due = ended,
                Err(error) => return self.broken_tls(error, &mut scratch.traffic),
            }
            if let Some(read) = self.answer_tls(waiting == scratch.decrypted.len(), &mut scratch.traffic) {
                return read;
            }
            &mut scratch.decrypted[..]
        } else {
            scratch.received[..waiting].copy_from_slice(held);
            let received = match sys::receive(&self.fd, &mut scratch.received[waiting..]) {
                Ok(0) => return self.end(),
                Ok(received) => received,
                Err(error) => return failed(error),
            };
            scratch.traffic.bytes_in += received as u64;
            &mut scratch.received[..waiting + received]
        };
        if all.len() < needed {
            let mut block = match self.tail.take() {
                Some(tail) => tail.into_block(),
                None => pool.take(all.len()),
            };
            let fresh = &all[block.len()..];
            block.grow(pool, all.len());
            block.extend_from_slice(fresh);
            self.tail = Some(Tail::new(block, 0, needed));
            return Read::Partial;
        }
        // All of it is in the scratch now.
        self.tail = None;
        self.deliver(all, pool, f)
    }

    /// With much in the tail: what comes is received right behind it. The block grows with what is there, whatever
    /// length the item says it has.
    fn read_appending<R>(
        &mut self,
        scratch: &mut Scratch,
        pool: &Pool,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        let Some(tail) = self.tail.take() else { return Read::WouldBlock };
        let needed = tail.needed.get() as usize;
        let mut block = tail.into_block();
        if self.tls.is_some() {
            // What a receive brings decrypts to less than its own length.
            let received = sys::receive(&self.fd, &mut scratch.received);
            if let Ok(received @ 1..) = received {
                scratch.traffic.bytes_in += received as u64;
                let before = block.len();
                block.grow(pool, before + received);
                let decrypted = match &mut self.tls {
                    Some(tls) => tls.decrypt(&scratch.received[..received], &mut block),
                    None => Ok(false),
                };
                match decrypted {
                    Ok(ended) => self.end_due = ended,
                    Err(error) => return self.broken_tls(error, &mut scratch.traffic),
                }
                if let Some(read) = self.answer_tls(block.len() == before, &mut scratch.traffic) {
                    self.tail = Some(Tail::new(block, 0, needed));
                    return read;
                }
            } else {
                self.tail = Some(Tail::new(block, 0, needed));
                return received.map_or_else(failed, |_| self.cut_off());
            }
        } else {
            if block.capacity() - block.len() < APPENDED_MIN {
                let double = block.len() * 2;
                block.grow(pool, double);
            }
            match sys::receive_appending(&self.fd, &mut block) {
                Ok(received @ 1..) => scratch.traffic.bytes_in += received as u64,
                other => {
                    self.tail = Some(Tail::new(block, 0, needed));
                    return other.map_or_else(failed, |_| self.end());
                }
            }
        }
        if block.len() < needed {
            self.tail = Some(Tail::new(block, 0, needed));
            return Read::Partial;
        }
        let (taken, value) = f(&mut block, &mut self.queue, pool);
        Read::Data { value, pending: self.keep_tail(block, 0, taken, pool) }
    }

    /// Hands the scratch out and keeps in a block what `f` leaves of it.
    #[inline]
    fn deliver<R>(
        &mut self,
        all: &mut [u8],
        pool: &Pool,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        let (taken, value) = f(all, &mut self.queue, pool);
        let left = &all[taken.consumed.min(all.len())..];
        if left.is_empty() {
            return Read::Data { value, pending: false };
        }
        let mut block = pool.take(left.len());
        block.extend_from_slice(left);
        self.tail = Some(Tail::new(block, 0, taken.needed));
        Read::Data { value, pending: self.has_pending() }
    }

    /// Keeps what `f` left of `block`. Says whether that is complete items.
    fn keep_tail(&mut self, block: Block, start: usize, taken: Taken, pool: &Pool) -> bool {
        let start = block.len().min(start + taken.consumed);
        let left = block.len() - start;
        if left == 0 {
            return false;
        }
        if taken.needed > left && left * 4 <= block.capacity() {
            // Only the beginning of an item is left: it moves to a block of its own size.
            let mut small = pool.take(left);
            small.extend_from_slice(&block[start..]);
            self.tail = Some(Tail::new(small, 0, taken.needed));
            return false;
        }
        // Complete items are not moved each time that a few of them are taken.
        self.tail = Some(Tail::new(block, start, taken.needed));
        self.has_pending()
    }

    fn end<R>(&mut self) -> Read<R> {
        (self.ended, self.end_due) = (true, false);
        Read::Eof
    }

    /// The stream has ended, and TLS has not said so: bytes may be missing, and anybody on the way may have cut it.
    fn cut_off<R>(&mut self) -> Read<R> {
        (self.ended, self.end_due) = (true, false);
        Read::Error(io::Error::new(io::ErrorKind::UnexpectedEof, "the TLS stream was cut off"))
    }

    fn flush_tls(&mut self, traffic: &mut Traffic) -> Flush {
        let Some(tls) = &mut self.tls else { return Flush::Done };
        let (bytes, sent) = tls.send(&self.fd, &mut self.queue);
        traffic.bytes_out += bytes as u64;
        // All went, and something is left: only the handshake keeps it.
        self.awaits_handshake = sent.is_ok() && !self.queue.is_empty();
        match sent {
            Ok(()) if self.awaits_handshake => Flush::Blocked,
            Ok(()) => Flush::Done,
            Err(Errno::AGAIN) => Flush::Blocked,
            Err(error) => Flush::Closed(error.into()),
        }
    }

    /// What TLS itself has to say after a receive (its handshake, a key update) is sent at once. If the receive
    /// brought nothing for the caller, this is all that there is to tell.
    fn answer_tls<R>(&mut self, nothing_came: bool, traffic: &mut Traffic) -> Option<Read<R>> {
        let awaited = self.awaits_handshake;
        let answered = match &self.tls {
            Some(tls) if tls.has_to_answer() || awaited => self.flush_tls(traffic),
            _ => Flush::Done,
        };
        match answered {
            Flush::Blocked => self.blocked = !self.awaits_handshake,
            // Who was told that it is blocked is told that it no longer is.
            Flush::Done if awaited => self.blocked = true,
            Flush::Closed(error) => return Some(Read::Error(error)),
            Flush::Done | Flush::Gone => {}
        }
        if !nothing_came {
            None
        } else if self.end_due {
            Some(self.end())
        } else {
            Some(Read::Partial)
        }
    }

    fn broken_tls<R>(&mut self, error: io::Error, traffic: &mut Traffic) -> Read<R> {
        let _ = self.flush_tls(traffic); // the alert, as far as it goes
        Read::Error(error)
    }
}

#[inline]
fn failed<R>(error: Errno) -> Read<R> {
    if error == Errno::AGAIN { Read::WouldBlock } else { Read::Error(error.into()) }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// What one receive can bring: more than a socket's buffer holds at first, and 4 times an answer of 16 KiB.
const SCRATCH_BYTES: usize = 64 << 10;
/// A tail up to this size is copied in front of what comes next: 40 ns, and one receive can bring many items.
const JOINED_MAX: usize = 2 << 10;
/// A longer one grows when it has less room than this.
const APPENDED_MIN: usize = 4 << 10;
/// Pieces of a queue that go into one `sendmsg`.
const PIECES_PER_SEND: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_is_small() {
        let bytes = size_of::<Socket>();
        assert!(bytes <= 128, "{bytes} bytes");
    }
}
