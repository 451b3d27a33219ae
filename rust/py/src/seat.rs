//! The messages of one session, one at a time and in order.

use std::collections::VecDeque;

use engine::realm::Event;
use pyo3::prelude::*;

use crate::dispatch::Asker;
use crate::session::Session;

/// Async handlers of one session that may wait at once, `concurrent=True` ones: the next ones queue.
const TASKS_MAX: u32 = 64;
/// Messages that wait before reading from the session pauses.
const WAITING_MAX: usize = 16;

/// A session's object, and what its messages wait for.
pub struct Seat {
    pub session: Py<Session>,
    pub generation: u32,
    rare: Option<Box<Rare>>,
}

/// What only sessions with something under way have.
#[derive(Default)]
struct Rare {
    /// Ordered handlers that wait: 0 or 1.
    ordered: u32,
    concurrent: u32,
    joining: u32,
    paused: bool,
    waiting: VecDeque<Waiting>,
    put_off: Vec<Event>,
}

/// A message that waits for its turn.
pub struct Waiting {
    pub asker: Asker,
    pub body: Box<[u8]>,
}

impl Seat {
    pub fn new(session: Py<Session>, generation: u32) -> Self {
        Self { session, generation, rare: None }
    }

    /// Whether a message that comes now must queue behind others.
    #[inline]
    pub fn is_busy(&self) -> bool {
        match &self.rare {
            None => false,
            Some(rare) => rare.blocked() || !rare.waiting.is_empty(),
        }
    }

    /// Queues a message. True if reading shall pause.
    #[must_use]
    pub fn wait(&mut self, waiting: Waiting) -> bool {
        let rare = self.rare();
        rare.waiting.push_back(waiting);
        let pause = rare.waiting.len() >= WAITING_MAX && !rare.paused;
        rare.paused |= pause;
        pause
    }

    /// The next message that may run, if nothing blocks it.
    pub fn next(&mut self) -> Option<Waiting> {
        let rare = self.rare.as_mut()?;
        if rare.blocked() { None } else { rare.waiting.pop_front() }
    }

    /// Whether reading, paused before, shall go on; drops what is needed no more.
    #[must_use]
    pub fn resume(&mut self) -> bool {
        let Some(rare) = &mut self.rare else { return false };
        let resume = rare.paused && rare.waiting.len() < WAITING_MAX / 2;
        rare.paused &= !resume;
        if !rare.blocked()
            && rare.waiting.is_empty()
            && !rare.paused
            && rare.concurrent == 0
            && rare.put_off.is_empty()
        {
            self.rare = None;
        }
        resume
    }

    pub fn task_started(&mut self, ordered: bool) {
        let rare = self.rare();
        if ordered { rare.ordered += 1 } else { rare.concurrent += 1 }
    }

    pub fn task_finished(&mut self, ordered: bool) {
        let rare = self.rare();
        if ordered { rare.ordered -= 1 } else { rare.concurrent -= 1 }
    }

    pub fn join_started(&mut self) {
        self.rare().joining += 1;
    }

    /// One async `on_join` is done; the events that waited for the last of them.
    pub fn join_finished(&mut self) -> Vec<Event> {
        let rare = self.rare();
        rare.joining = rare.joining.saturating_sub(1);
        if rare.joining == 0 { std::mem::take(&mut rare.put_off) } else { Vec::new() }
    }

    /// Keeps an event until `on_join` has finished. False if it need not wait.
    pub fn put_off(&mut self, event: &Event) -> bool {
        match &mut self.rare {
            Some(rare) if rare.joining > 0 => {
                rare.put_off.push(event.clone());
                true
            }
            _ => false,
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Rare {
    fn blocked(&self) -> bool {
        self.ordered > 0 || self.joining > 0 || self.concurrent >= TASKS_MAX
    }
}
