//! Sessions whose client comes back over another connection: who may, what each side has seen, what is sent again.
//!
//! It happens in the handshake, before the game is asked anything: the token says whose session it is.

use wire::handshake::ResumeRequest;

use super::{Event, Left, Realm, SessionKey};
use crate::event::{Class, Close, Down, DownLog, LinkId, Nanos, SEEN_KEY};
use crate::resume::{SEEN_ROUTE, Token};
use crate::session::{Session, State};

impl Realm {
    /// Gives the link of `newcomer`, whose handshake this is, to the session whose token it has. False: it has no right to
    /// one, or one that can't go on without a gap; then it is somebody new.
    pub(super) fn take_over(&mut self, newcomer: SessionKey, ask: &ResumeRequest) -> bool {
        let Some(token) = &ask.token else { return false };
        let Some((key, goes_on)) = self.session_of_token(token, ask.seen) else {
            self.stats.resume_refused += 1;
            return false;
        };
        self.close_old_link(key);
        if !goes_on {
            self.stats.resume_refused += 1;
            self.end(key, Left::Lost, None);
            return false;
        }
        let snapshots = self.sessions.snapshots.take(newcomer.slot);
        let Some(guest) = self.sessions.remove(newcomer) else { return false };
        self.sessions.snapshots.set(key.slot, snapshots);
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let was_active = std::mem::replace(&mut session.state, State::Pending) == State::Active;
        let (timer, seen) = (session.take_timer(), session.messages_in);
        (session.charge, session.doomed) = (0, false);
        session.take_link_of(guest);
        let (link, paused) = (session.link, session.rare().is_some_and(|rare| rare.paused));
        if let Some(timer) = timer {
            self.timers.cancel(timer);
            self.waiting -= 1;
        }
        if was_active {
            self.events.push_back(Event::Dropped { session: key });
        }
        if let Some(link) = link {
            self.links[usize::from(link.reactor())][link.slot() as usize].session = key.slot;
        }
        self.answer(key, Some(seen));
        if paused {
            self.pause(key);
        }
        true
    }

    /// It may be another server's: the game can ask what that has left.
    pub(super) fn note_token(&mut self, newcomer: SessionKey, ask: &ResumeRequest) {
        let token = ask.token.as_deref().and_then(Token::parse);
        if let (Some(token), Some(session)) = (token, self.sessions.get_mut(newcomer)) {
            session.rare_mut().came_with = Some(Box::new(token.hash()));
        }
    }

    /// Whose token it is, and whether that session can go on with a client that has seen so much.
    fn session_of_token(&mut self, token: &str, seen: u64) -> Option<(SessionKey, bool)> {
        let token = Token::parse(token)?;
        let (key, session) = self.sessions.at_mut(token.slot)?;
        let resume = session.resume_mut()?;
        if !resume.tokens.accept(token) {
            return None;
        }
        let goes_on = resume.unseen.reaches(seen) && resume.unseen.handle_seen(seen).is_ok();
        Some((key, goes_on))
    }

    /// What still comes from it is nobody's: the client sends it again.
    fn close_old_link(&mut self, key: SessionKey) {
        let Some(link) = self.sessions.get_mut(key).and_then(|session| session.link.take()) else { return };
        self.forget_link(link);
        self.downs[usize::from(link.reactor())].push(Down::Abort { link, why: Close::Replaced });
    }

    /// A new token for the client of this session, if it can come back; `is_wanted`: it asks for one.
    pub(super) fn issue_token(&mut self, key: SessionKey, is_wanted: bool) -> Option<String> {
        let grace = self.config.resume_grace;
        let source = self.tokens.as_mut().filter(|_| grace > 0)?;
        let session = self.sessions.get_mut(key)?;
        if !is_wanted && !session.can_return() {
            return None;
        }
        let token = source.make(key.slot);
        session.let_return().tokens.issue(token);
        Some(token.to_text())
    }

    /// Has the session wait for its client to come back. False if there are too many that do.
    pub(super) fn wait_for_client(&mut self, now: Nanos, key: SessionKey) -> bool {
        if self.waiting >= self.config.resume_waiting_max {
            return false;
        }
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let timer = self.timers.insert(now.saturating_add(self.config.resume_grace), u64::from(key.slot));
        session.rare_mut().timer = Some(timer);
        self.waiting += 1;
        true
    }

    /// The client hears at each heartbeat how much was seen.
    pub(super) fn tell_seen_at_heartbeat(&mut self, link: LinkId) {
        if let Some(key) = self.session_of(link)
            && let Some(session) =
                self.sessions.get_mut(key).filter(|session| session.reachable() == Some(link))
        {
            session.tell_seen(link, &mut self.downs[usize::from(link.reactor())]);
        }
    }

    /// The client says how much it has seen. One that has seen what was never sent can't count.
    pub(super) fn seen(&mut self, link: LinkId, count: u64) {
        let Some((_, session)) = self.of(link) else { return };
        let Some(resume) = session.resume_mut() else {
            self.stats.ignored += 1;
            return;
        };
        if resume.unseen.handle_seen(count).is_err() && !session.doomed {
            session.doomed = true;
            self.downs[usize::from(link.reactor())].push(Down::Close { link, why: Close::MessageInvalid });
        }
    }
}

impl Session {
    /// What the client had not seen when it came back is sent again.
    pub(super) fn send_again(&mut self, link: LinkId, downs: &mut DownLog) {
        let Some(resume) = self.resume_mut() else { return };
        resume.tokens.acknowledge();
        let mut count = 0;
        let charge = resume.unseen.charge();
        let packets = downs.append_with(|bytes| count = resume.unseen.write(bytes));
        if count > 0 {
            self.charge += charge;
            downs.push(Down::Again { link, packets, count });
        }
    }

    /// Tells the client how much was seen, if it does not know.
    pub(super) fn tell_seen(&mut self, link: LinkId, downs: &mut DownLog) {
        let (count, bytes) = (self.messages_in, self.bytes_in);
        if self.resume_mut().is_some_and(|resume| resume.told.tell(count, bytes)) {
            let (route, body) =
                (downs.store(SEEN_ROUTE.as_bytes()), downs.store(count.to_string().as_bytes()));
            downs.push(Down::Push { link, class: Class::Latest, key: SEEN_KEY, route, body });
        }
    }

    /// After a message: tells now what should not wait for the next heartbeat.
    #[inline]
    pub(super) fn tell_seen_if_due(&mut self, link: LinkId, downs: &mut DownLog) {
        if self.can_return() {
            self.tell_seen_if_far(link, downs);
        }
    }

    #[inline(never)] // keeps it small where nobody can come back
    fn tell_seen_if_far(&mut self, link: LinkId, downs: &mut DownLog) {
        let (count, bytes) = (self.messages_in, self.bytes_in);
        if self.resume_mut().is_some_and(|resume| resume.told.is_due(count, bytes)) {
            self.tell_seen(link, downs);
        }
    }

    /// Counts and keeps a packet that goes to a client that can come back.
    #[inline]
    pub(super) fn keep(&mut self, max: u32, parts: &[&[u8]]) {
        if let Some(resume) = self.resume_mut() {
            resume.unseen.keep(parts, max);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::session::Resume;

    #[test]
    fn what_a_session_has_to_come_back_is_small() {
        assert!(size_of::<Resume>() <= 208, "{} bytes", size_of::<Resume>());
    }
}
