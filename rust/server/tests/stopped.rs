//! One of two I/O threads really stands still, wherever it happens to be: nothing locks up, nothing is lost, and the
//! clients of the other one notice nothing.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Client, Game, request};
use engine::event::{Class, Close};
use engine::session::SessionKey;
use wire::packet::PacketKind;

/// The read end of the pipe that a stopped thread waits for.
static GATE: AtomicI32 = AtomicI32::new(-1);
/// Threads that have stopped so far.
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// Runs in the thread that is to stop, between any two of its instructions.
extern "C" fn stand_still(_: libc::c_int) {
    let gate = GATE.load(SeqCst);
    STOPPED.fetch_add(1, SeqCst);
    let mut byte = 0u8;
    // SAFETY: read may be called in a signal handler, and `byte` has room for the one byte asked for.
    unsafe { libc::read(gate, (&raw mut byte).cast(), 1) };
}

/// An I/O thread, standing still until this is dropped.
struct Stopped {
    gate: OwnedFd,
}

impl Stopped {
    fn thread(number: u8) -> Self {
        let (read, write) = rustix::pipe::pipe().unwrap();
        GATE.store(read.as_raw_fd(), SeqCst);
        std::mem::forget(read); // for the handler, as long as the process lives
        let before = STOPPED.load(SeqCst);
        // SAFETY: all zeros is a sigaction without flags and with an empty mask; the handler only calls what it may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = stand_still as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        }
        let thread = thread_named(&format!("gameserver-io-{number}"));
        // SAFETY: it sends a signal that has a handler to a thread of this process.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
        assert_eq!(sent, 0);
        while STOPPED.load(SeqCst) == before {
            std::thread::yield_now();
        }
        Self { gate: write }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        rustix::io::write(&self.gate, &[1]).unwrap();
    }
}

/// The id of a thread of this process. It gives itself its name, so that may take a moment.
fn thread_named(name: &str) -> libc::pid_t {
    loop {
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap();
            if std::fs::read_to_string(task.path().join("comm")).unwrap().trim() == name {
                return task.file_name().to_str().unwrap().parse().unwrap();
            }
        }
        std::thread::yield_now();
    }
}

const ROUNDS: u8 = 100;

fn answer(round: u8) -> Vec<u8> {
    [&[4, round][..], b"kept"].concat()
}

fn push(round: u8) -> Vec<u8> {
    vec![6, 1, b'p', round]
}

#[test]
fn a_thread_that_stands_still_holds_up_nobody_else_and_loses_nothing() {
    let mut game = Game::new(2, |_, _| {});
    // Whom a thread that stands still does not accept, the other one does.
    let mut four_of = |reactor: u8| -> Vec<(Client, SessionKey)> {
        let one = |_| {
            let before: Vec<_> = game.server.realm.sessions().collect();
            let client = game.connect();
            let key = game.server.realm.sessions().find(|key| !before.contains(key)).unwrap();
            assert_eq!(game.server.realm.session(key).unwrap().link().unwrap().reactor(), reactor);
            (client, key)
        };
        (0..4).map(one).collect()
    };
    let stopped = Stopped::thread(2);
    let mut held = four_of(1);
    drop(stopped);
    let stopped = Stopped::thread(1);
    let mut free = four_of(2);
    let began = Instant::now();
    let mut newcomers = Vec::new();
    for round in 1..=ROUNDS {
        for (client, _) in held.iter_mut().chain(&mut free) {
            client.send(&request(round, "echo", b"kept"));
        }
        // The realm goes on speaking to everybody.
        assert!(game.server.realm.push_all(None, Class::Reliable, 0, "p", &[round][..]) >= 8);
        for (client, _) in &mut free {
            let mut seen = Vec::new();
            game.until(|_| {
                seen.extend(client.packet(PacketKind::Data));
                seen.len() == 2
            });
            assert!(seen.contains(&answer(round)) && seen.contains(&push(round)));
        }
        if round <= 3 {
            newcomers.push(game.connect());
        }
    }
    while began.elapsed() < Duration::from_secs(1) {
        game.turn();
    }
    for (client, _) in &mut held {
        assert_eq!(client.packet(PacketKind::Data), None, "its thread stands still");
    }
    drop(stopped);

    // Everything that was sent is answered, in order, and all pushes arrive.
    for (client, key) in &mut held {
        let mut seen = [Vec::new(), Vec::new()];
        game.until(|_| {
            while let Some(body) = client.packet(PacketKind::Data) {
                seen[usize::from(body[0] == 6)].push(body);
            }
            seen.iter().all(|seen| seen.len() == usize::from(ROUNDS))
        });
        assert_eq!(seen, [(1..=ROUNDS).map(answer).collect::<Vec<_>>(), (1..=ROUNDS).map(push).collect()]);
        assert!(game.server.realm.session(*key).is_some());
    }
    assert_eq!((game.closed(Close::Reset), game.closed(Close::Slow), game.closed(Close::Silent)), (0, 0, 0));
    game.end();
}
