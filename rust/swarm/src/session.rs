//! What lets a client go on over another connection: docs/wire.md, "Resume".
//!
//! What it said is made again from the plan: nothing but which turn it was has to be kept.

use std::collections::VecDeque;

/// Of one client.
#[derive(Debug, Default)]
pub(crate) struct Session {
    token: String,
    /// Of the server's messages, and so many of them it was told.
    seen: u64,
    told: u64,
    /// So many were said before those that are kept.
    gone: u64,
    said: VecDeque<Said>,
}

/// A counted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its number, if it is a request; else 0.
    pub id: u32,
    /// Which turn of the client's it was; None: it asked for a seat.
    pub turn: Option<u32>,
}

impl Session {
    /// A new one, by the token of a handshake's answer.
    pub fn new(token: &str) -> Self {
        Self { token: token.to_owned(), ..Self::default() }
    }

    /// The handshake that goes on with it, made of the one that begins.
    pub fn handshake(&self, first: &[u8]) -> Vec<u8> {
        let Some(at) = first.windows(ASKED.len()).position(|bytes| bytes == ASKED) else {
            return first.to_vec();
        };
        let asks = format!("\"resume\":{{\"token\":\"{}\",\"seen\":{}}}", self.token, self.seen);
        [&first[..at], asks.as_bytes(), &first[at + ASKED.len()..]].concat()
    }

    /// False: too many wait to be seen, and it is not said.
    pub fn say(&mut self, said: Said) -> bool {
        if self.said.len() == SAID_MAX {
            return false;
        }
        self.said.push_back(said);
        true
    }

    /// It goes on with this token. False: the server has seen what is not so, and nothing can go on.
    pub fn go_on(&mut self, token: &str, seen: u64) -> bool {
        token.clone_into(&mut self.token);
        self.told = self.seen; // the handshake has told it
        self.handle_seen(seen)
    }

    /// So many of all that was said, by the server's word.
    pub fn handle_seen(&mut self, seen: u64) -> bool {
        let Some(new) = seen.checked_sub(self.gone).filter(|new| *new <= self.said.len() as u64) else {
            return false;
        };
        self.said.drain(..new as usize);
        self.gone = seen;
        true
    }

    /// What the server may not have seen, oldest first.
    pub fn unseen(&self) -> impl Iterator<Item = Said> {
        self.said.iter().copied()
    }

    /// A counted message came. The count, if the server should be told now.
    pub fn heard(&mut self) -> Option<u64> {
        self.seen += 1;
        if self.seen - self.told < TELL_AFTER {
            return None;
        }
        self.told = self.seen;
        Some(self.seen)
    }
}

/// How a handshake asks for a session that can go on.
const ASKED: &[u8] = b"\"resume\":{}";
const TELL_AFTER: u64 = 32;
/// Said, and not known to be seen.
const SAID_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_goes_on_where_the_first_asked_for_it_and_nowhere_else() {
        let first = br#"{"sys":{"gs":{"resume":{}}},"user":{"say":"\"resume\":{}"}}"#;
        let mut session = Session::new("abc");
        for _ in 0..3 {
            session.heard();
        }
        let again = String::from_utf8(session.handshake(first)).unwrap();
        assert_eq!(
            again,
            r#"{"sys":{"gs":{"resume":{"token":"abc","seen":3}}},"user":{"say":"\"resume\":{}"}}"#
        );
    }

    #[test]
    fn what_was_seen_is_not_said_again_and_nothing_else_is_left_out() {
        let mut session = Session::new("a");
        let said = |n| Said { id: n, turn: Some(n) };
        assert!((1..=5).all(|n| session.say(said(n))));
        assert!(session.handle_seen(2) && session.go_on("b", 3));
        assert_eq!(session.unseen().collect::<Vec<_>>(), [said(4), said(5)]);
        assert!(
            !session.handle_seen(2) && !session.handle_seen(6),
            "less than before, and more than was said"
        );
        assert!(session.handle_seen(5) && session.unseen().next().is_none());
    }

    #[test]
    fn the_server_is_told_now_and_then_and_what_is_kept_is_bounded() {
        let mut session = Session::new("a");
        let told: Vec<u64> = (0..100).filter_map(|_| session.heard()).collect();
        assert_eq!(told, [32, 64, 96]);
        let kept = (0..10_000).filter(|_| session.say(Said { id: 0, turn: None })).count();
        assert_eq!(kept, SAID_MAX);
    }
}
