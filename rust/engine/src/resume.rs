//! What lets a session go on over another connection: tokens, and what was sent and may not have arrived.
//!
//! Each side counts the messages of the session that it sends and that it handles, and keeps the sent ones until the other
//! says that it has seen them. A client that comes back says how many it has seen; the answer says how many the server has:
//! each sends the rest again, in order. What is no longer kept can't be sent again: then there is no going on.
//! docs/wire.md says what is counted.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::event::charge_answers;

/// A push to which says how many messages were seen; a notify to it says the same of the client.
pub const SEEN_ROUTE: &str = "$seen";
/// A request to it is answered at once, without a body: how long that takes is the round-trip time.
pub const PING_ROUTE: &str = "$ping";
/// A notify to it ends the session.
pub const LEAVE_ROUTE: &str = "$leave";
/// What stands before the route of a push that is not counted, because it may be dropped on its way.
pub const UNCOUNTED_PREFIX: &str = "$~";
/// Pushes of what an error answer would have been, had a notify one.
pub const ERROR_ROUTE: &str = "$error";
/// A push to it asks a client to connect anew: `{"delay": 1.25}`, in seconds.
pub const RECONNECT_ROUTE: &str = "$reconnect";

/// Whether a reliable push to this route is counted.
#[inline]
pub fn is_counted(route: &str) -> bool {
    !route.starts_with('$') || route == ERROR_ROUTE
}

/// The count that a message to `$seen` tells.
pub fn parse_seen(body: &[u8]) -> Option<u64> {
    let is_number = !body.is_empty() && body.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(body).ok().filter(|_| is_number)?.parse().ok()
}

/// Whole packets that were sent and, as far as is known, not seen.
#[derive(Debug, Default)]
pub struct Unseen {
    /// So many were sent before those that are kept.
    gone: u64,
    kept: VecDeque<Kept>,
    /// The bytes of those that nobody else has.
    own: VecDeque<u8>,
    charge: u64,
}

#[derive(Debug)]
enum Kept {
    Own(u32),
    Shared(Arc<[u8]>),
}

/// The other side says that it has seen more than was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{seen} messages were seen, and only {sent} sent")]
pub struct NeverSent {
    /// What it says.
    pub seen: u64,
    /// What is true.
    pub sent: u64,
}

impl Unseen {
    /// Counts a packet, given in parts, and keeps a copy; of all, the newest that are charged at most `max` bytes.
    #[inline]
    pub fn keep(&mut self, parts: &[&[u8]], max: u32) {
        let mut len = 0;
        for part in parts {
            self.own.extend(*part);
            len += part.len();
        }
        self.push(Kept::Own(len as u32), max);
    }

    /// Counts a packet that others keep, too.
    #[inline]
    pub fn keep_shared(&mut self, packet: Arc<[u8]>, max: u32) {
        self.push(Kept::Shared(packet), max);
    }

    /// Lets those go that were seen.
    pub fn handle_seen(&mut self, seen: u64) -> Result<(), NeverSent> {
        if seen > self.sent() {
            return Err(NeverSent { seen, sent: self.sent() });
        }
        while self.gone < seen {
            self.let_go();
        }
        if self.kept.is_empty() && self.own.capacity() + self.kept.capacity() > SPARE_BYTES {
            (self.kept, self.own) = Default::default();
        }
        Ok(())
    }

    /// Appends all that are kept, oldest first; says how many.
    pub fn write(&mut self, out: &mut Vec<u8>) -> u32 {
        let mut own = &*self.own.make_contiguous();
        for kept in &self.kept {
            match kept {
                Kept::Own(len) => {
                    let (packet, rest) = own.split_at(*len as usize);
                    out.extend_from_slice(packet);
                    own = rest;
                }
                Kept::Shared(packet) => out.extend_from_slice(packet),
            }
        }
        self.kept.len() as u32
    }

    /// Whether everything behind the first `seen` is kept.
    pub fn reaches(&self, seen: u64) -> bool {
        (self.gone..=self.sent()).contains(&seen)
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.gone + self.kept.len() as u64
    }

    /// What sending all that are kept will be charged.
    pub fn charge(&self) -> u32 {
        self.charge as u32 // `keep` has kept it below a u32
    }

    fn push(&mut self, kept: Kept, max: u32) {
        self.charge += kept.charge();
        self.kept.push_back(kept);
        while self.charge > u64::from(max) {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        let Some(kept) = self.kept.pop_front() else { return };
        if let Kept::Own(len) = kept {
            self.own.drain(..len as usize);
        }
        self.gone += 1;
        self.charge -= kept.charge();
    }
}

impl Kept {
    fn charge(&self) -> u64 {
        let len = match self {
            Kept::Own(len) => *len as usize,
            Kept::Shared(packet) => packet.len(),
        };
        u64::from(charge_answers(len, 1))
    }
}

/// When the other side is to be told how much was seen.
#[derive(Debug, Default)]
pub struct Told {
    messages: u64,
    bytes: u64,
}

impl Told {
    /// Whether so much has come since the last time that it can't wait for the next heartbeat.
    #[inline]
    pub fn is_due(&self, messages: u64, bytes: u64) -> bool {
        messages - self.messages >= SEEN_MESSAGES || bytes.saturating_sub(self.bytes) >= SEEN_BYTES
    }

    /// Whether there is anything to tell; it is told now.
    pub fn tell(&mut self, messages: u64, bytes: u64) -> bool {
        self.bytes = bytes;
        std::mem::replace(&mut self.messages, messages) != messages
    }
}

// -- tokens ----------------------------------------------------------------------------------------------------------

/// The right to go on with a session: where it is, and a secret of 128 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The session's place.
    pub slot: u32,
    secret: [u8; 16],
}

impl Token {
    /// Reads what [`Token::to_text`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != TOKEN_BYTES {
            return None;
        }
        let (slot, secret) = bytes.split_first_chunk()?;
        Some(Self { slot: u32::from_be_bytes(*slot), secret: secret.try_into().ok()? })
    }

    /// For a handshake.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode([&self.slot.to_be_bytes()[..], &self.secret].concat())
    }

    // Of 128 random bits: there is nothing that could be guessed and tried, so it need not be slow.
    pub(crate) fn hash(self) -> Hash {
        Sha256::digest(self.secret).into()
    }
}

/// Of a token's secret: what is kept of it.
pub type Hash = [u8; 32];

/// Makes tokens from 32 random bytes: the same ones from the same bytes, as a replay needs it.
pub struct TokenSource {
    seed: [u8; 32],
    made: u64,
}

impl TokenSource {
    /// Whoever knows the seed knows the tokens.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, made: 0 }
    }

    /// One that was not there before.
    pub fn make(&mut self, slot: u32) -> Token {
        self.made += 1;
        let hash: Hash =
            Sha256::new().chain_update(self.seed).chain_update(self.made.to_be_bytes()).finalize().into();
        let mut secret = [0; 16];
        secret.copy_from_slice(&hash[..16]);
        Token { slot, secret }
    }
}

/// The hashes of a session's tokens: the one that its client has, and the one that was sent last.
///
/// Until the acknowledgement nobody knows whether the last one has arrived: both are good.
#[derive(Default)]
pub struct Tokens {
    current: Option<Hash>,
    next: Option<Hash>,
}

impl Tokens {
    /// This one was sent; the one sent before it and not acknowledged is good no more.
    pub fn issue(&mut self, token: Token) {
        self.next = Some(token.hash());
    }

    /// The one that was sent last.
    pub(crate) fn newest(&self) -> Option<Hash> {
        self.next.or(self.current)
    }

    /// The last one has arrived: the one before it is good no more.
    pub fn acknowledge(&mut self) {
        if let Some(next) = self.next.take() {
            self.current = Some(next);
        }
    }

    /// Whether the token is one of them. One that was sent last has arrived, it seems.
    pub fn accept(&mut self, token: Token) -> bool {
        // Hashes of secrets are compared: how long it takes says nothing of a secret.
        let hash = Some(token.hash());
        if hash == self.next {
            self.acknowledge();
        }
        hash == self.current
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

const TOKEN_BYTES: usize = 4 // the session's place
    + 16; // the secret
/// So many messages are seen without a word between two heartbeats.
const SEEN_MESSAGES: u64 = 64;
/// Or so many bytes of them: a sixteenth of what a queue may hold.
const SEEN_BYTES: u64 = 16 * 1024;
/// Who keeps nothing for now keeps no more memory than this for it.
const SPARE_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(unseen: &mut Unseen) -> (u32, Vec<u8>) {
        let mut out = Vec::new();
        (unseen.write(&mut out), out)
    }

    #[test]
    fn what_was_not_seen_is_kept_in_order() {
        let mut unseen = Unseen::default();
        unseen.keep(&[b"a", b"b"], 100);
        unseen.keep_shared(b"cd"[..].into(), 100);
        unseen.keep(&[b"ef"], 100);
        assert_eq!((unseen.sent(), all(&mut unseen)), (3, (3, b"abcdef".to_vec())));
        assert_eq!(unseen.charge(), 36);
        unseen.handle_seen(1).unwrap();
        unseen.handle_seen(0).unwrap(); // old news
        assert_eq!((unseen.sent(), all(&mut unseen)), (3, (2, b"cdef".to_vec())));
        assert_eq!(unseen.handle_seen(4), Err(NeverSent { seen: 4, sent: 3 }));
        unseen.handle_seen(3).unwrap();
        assert_eq!((unseen.sent(), all(&mut unseen), unseen.charge()), (3, (0, vec![]), 0));
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_and_nothing_reaches_back_to_them() {
        let mut unseen = Unseen::default();
        for byte in 0..10 {
            unseen.keep(&[&[byte]], 33);
        }
        assert_eq!((unseen.sent(), all(&mut unseen)), (10, (3, vec![7, 8, 9])));
        assert_eq!([6, 7, 10, 11].map(|seen| unseen.reaches(seen)), [false, true, true, false]);
        unseen.keep(&[&[0; 100]], 33);
        assert!(!unseen.reaches(10) && unseen.reaches(11), "too long to be kept at all");
        unseen.handle_seen(5).unwrap();
        assert_eq!((unseen.sent(), all(&mut unseen)), (11, (0, vec![])));
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut unseen = Unseen::default();
        for _ in 0..1000 {
            unseen.keep(&[&[0; 50]], u32::MAX);
        }
        unseen.handle_seen(1000).unwrap();
        assert_eq!((unseen.own.capacity(), unseen.kept.capacity()), (0, 0));
    }

    #[test]
    fn told_by_count_or_by_bytes() {
        let mut told = Told::default();
        assert!(!told.is_due(63, SEEN_BYTES - 1) && told.is_due(64, 0) && told.is_due(1, SEEN_BYTES));
        assert!(told.tell(64, 900) && !told.tell(64, 900));
        assert!(!told.is_due(127, 900) && told.is_due(128, 900));
    }

    #[test]
    fn counts_are_plain_numbers() {
        assert_eq!(parse_seen(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_seen(b"0"), Some(0));
        for none in [&b""[..], b"-1", b"+1", b"1.0", b" 1", b"18446744073709551616", b"\xff"] {
            assert_eq!(parse_seen(none), None);
        }
    }

    #[test]
    fn tokens_are_text_and_differ() {
        let mut source = TokenSource::new([7; 32]);
        let (first, second) = (source.make(5), source.make(5));
        assert!(first != second);
        assert!(Token::parse(&first.to_text()) == Some(first));
        assert_eq!(first.to_text().len(), 27);
        assert!(TokenSource::new([7; 32]).make(5) == first, "the same from the same seed");
        assert!(TokenSource::new([8; 32]).make(5) != first);
        for none in ["", "AAAA", "?", &"A".repeat(26), &"A".repeat(28), &"A".repeat(4000)] {
            assert!(Token::parse(none).is_none());
        }
    }

    #[test]
    fn the_old_token_is_good_until_the_new_one_is_acknowledged() {
        let mut source = TokenSource::new([0; 32]);
        let [first, second, third, fourth] = [0; 4].map(|slot| source.make(slot));
        let mut tokens = Tokens::default();
        assert!(!tokens.accept(first));
        tokens.issue(first);
        tokens.acknowledge();
        tokens.issue(second);
        assert!(tokens.accept(first), "the answer may have been lost");
        tokens.issue(third);
        assert!(!tokens.accept(second), "it was lost, as was said by the first one's coming again");
        assert!(tokens.accept(first));
        assert!(
            tokens.accept(third) && !tokens.accept(first),
            "it has arrived; its acknowledgement was lost"
        );
        tokens.issue(fourth);
        tokens.acknowledge();
        assert!(!tokens.accept(third) && tokens.accept(fourth), "replayed");
        tokens.acknowledge();
        assert!(tokens.accept(fourth), "an acknowledgement of nothing");
    }
}
