//! A recording, part by part, in place of sockets and clock.
//!
//! Once it has ended, or differs from what the replay does, it says nothing more.

use std::io;
use std::path::Path;

use engine::event::{Nanos, UpLog};

use crate::record::{DESERTED, ENDED, FAILURE, Part, Player, RETURNED};
use crate::turn::Server;

/// A recording that is being replayed, and what was found so far.
pub struct Replay {
    player: Player,
    ahead: Option<Part>,
    turns: u64,
    compared: u64,
    difference: Option<String>,
    damage: Option<String>,
    is_over: bool,
}

/// What the recorded run did next.
pub enum Played {
    /// A turn, whose logs are to be dispatched.
    Turn(Vec<UpLog>),
    /// It sent what the replay sends.
    Sent,
    /// It told who waited for the last client to go.
    Deserted,
    /// It told that an I/O thread had ended.
    Failed(String),
    /// It returned to asyncio.
    Returned,
    /// Nothing more: the recording is at its end, or it differs.
    Over,
}

impl Replay {
    /// Opens a recording.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut player = Player::open(path)?;
        let ahead = player.next_part()?;
        Ok(Self { player, ahead, turns: 0, compared: 0, difference: None, damage: None, is_over: false })
    }

    /// The next part if it is a time outside of a turn, of this kind.
    pub fn take_mark(&mut self, kind: u8) -> io::Result<Option<Nanos>> {
        match self.ahead {
            Some(Part::Mark(next, now)) if next == kind && !self.is_over => {
                self.take()?;
                Ok(Some(now))
            }
            _ => Ok(None),
        }
    }

    /// The next part if it is a note of this kind.
    pub fn take_note(&mut self, kind: u8) -> io::Result<Option<Vec<u8>>> {
        if self.is_over || !matches!(self.ahead, Some(Part::Note(next, _)) if next == kind) {
            return Ok(None);
        }
        match self.take()? {
            Some(Part::Note(_, bytes)) => Ok(Some(bytes)),
            _ => unreachable!("seen above"),
        }
    }

    /// The replay does not do what the recorded run did; the first such finding is kept.
    pub fn differ(&mut self, what: &str) {
        if !self.is_over {
            self.difference = Some(format!("in turn {}: {what}", self.turns));
            self.is_over = true;
        }
    }

    /// The replay does what the recording does not have next: no difference if it was cut off here.
    pub fn miss(&mut self, what: &str) {
        if self.ahead.is_some() {
            self.differ(what);
        }
        self.is_over = true;
    }

    /// Whether it says nothing more.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Turns replayed.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Logs toward links that were compared.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Where the first difference is, if there is one.
    pub fn difference(&self) -> Option<&str> {
        self.difference.as_deref()
    }

    /// Why the recording can't be read further, whoever met it.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    fn take(&mut self) -> io::Result<Option<Part>> {
        match self.player.next_part() {
            Ok(next) => Ok(std::mem::replace(&mut self.ahead, next)),
            Err(error) => {
                self.damaged(&error);
                Err(error)
            }
        }
    }

    fn damaged(&mut self, error: &io::Error) {
        self.damage = Some(error.to_string());
        self.is_over = true;
    }

    fn logs(&mut self) -> io::Result<Vec<UpLog>> {
        let mut logs = Vec::new();
        while matches!(self.ahead, Some(Part::Up(_))) {
            if let Some(Part::Up(log)) = self.take()? {
                logs.push(log);
            }
        }
        Ok(logs)
    }
}

impl Server {
    /// What the recorded run did next, at its time.
    pub fn play(&mut self) -> io::Result<Played> {
        let is_owing = self.is_owing();
        let Some(replay) = self.replay.as_mut().filter(|replay| !replay.is_over) else {
            return Ok(Played::Over);
        };
        Ok(match replay.take()? {
            Some(Part::Turn(_)) if is_owing => {
                replay.differ("more was sent than recorded");
                Played::Over
            }
            Some(Part::Turn(now)) => {
                replay.turns += 1;
                let logs = replay.logs()?;
                self.replay_turn(now);
                Played::Turn(logs)
            }
            Some(Part::Down(recorded)) => {
                replay.compared += 1;
                if self.replay_sent(recorded.first().copied().unwrap_or(0)) == recorded {
                    return Ok(Played::Sent);
                }
                self.differ("other bytes were sent than recorded");
                Played::Over
            }
            Some(Part::Note(RETURNED, _)) => Played::Returned,
            Some(Part::Note(DESERTED, _)) => Played::Deserted,
            Some(Part::Note(FAILURE, why)) => Played::Failed(String::from_utf8_lossy(&why).into_owned()),
            Some(Part::Mark(kind, _) | Part::Note(kind, _)) => {
                replay.differ(&format!("the recorded run {}, the replay did not", deed(kind)));
                Played::Over
            }
            Some(Part::Up(_)) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "a log outside of a turn");
                replay.damaged(&error);
                return Err(error);
            }
            None => {
                replay.is_over = true;
                Played::Over
            }
        })
    }

    /// The replay has come to its end: nothing may be left of the recording but what is sent now.
    pub fn end_replay(&mut self) -> io::Result<()> {
        let is_next_sent = |replay: &Option<Replay>| {
            replay
                .as_ref()
                .is_some_and(|replay| matches!(replay.ahead, Some(Part::Down(_))) && !replay.is_over)
        };
        while is_next_sent(&self.replay) {
            self.play()?;
        }
        let is_owing = self.is_owing();
        if let Some(replay) = &mut self.replay {
            if replay.take_note(ENDED)?.is_none() {
                replay.miss("the recorded run went on, the replay has ended");
            } else if is_owing {
                replay.differ("at the end more was sent than recorded");
            }
            replay.is_over = true;
        }
        Ok(())
    }

    /// The replay does not do what the recorded run did.
    pub fn differ(&mut self, what: &str) {
        if let Some(replay) = &mut self.replay {
            replay.differ(what);
        }
    }
}

fn deed(kind: u8) -> String {
    match kind {
        b'B' => "had started".to_owned(),
        b'P' => "began to stop".to_owned(),
        b'X' => "kicked everybody".to_owned(),
        ENDED => "ended".to_owned(),
        _ => format!("noted {:?}", char::from(kind)),
    }
}
