//! One of two I/O threads really stands still, wherever it happens to be: nothing locks up, nothing is lost, and the
//! clients of the other one notice nothing.

mod common;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Game, request};
use engine::event::{Class, Close};
use wire::packet::PacketKind;

/// The read end of the pipe that a stopped thread waits for.
static GATE: AtomicI32 = AtomicI32::new(-1);
/// Threads that have stopped so far.
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// Runs in the thread that is to stop, between any two of its instructions.
extern "C" fn stand_still(_: libc::c_int) {
    STOPPED.fetch_add(1, SeqCst);
    let mut byte = 0u8;
    // SAFETY: read may be called in a signal handler, and `byte` has room for the one byte asked for.
    unsafe { libc::read(GATE.load(SeqCst), (&raw mut byte).cast(), 1) };
}

/// The first I/O thread, standing still until this is dropped.
struct Stopped {
    gate: OwnedFd,
}

impl Stopped {
    fn first_thread() -> Self {
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
        let thread = thread_named("gameserver-io-1");
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

fn thread_named(name: &str) -> RawFd {
    let mut tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let found = tasks.find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name);
    found.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap()
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
    let mut clients = [Vec::new(), Vec::new()];
    while clients.iter().any(|of_thread| of_thread.len() < 4) {
        let client = game.connect();
        let key = game.server.realm.sessions().last().unwrap();
        let reactor = game.server.realm.session(key).unwrap().link().unwrap().reactor();
        clients[usize::from(reactor) - 1].push((client, key));
    }
    let [mut held, mut free] = clients;

    let stopped = Stopped::first_thread();
    let began = Instant::now();
    let mut newcomers = Vec::new();
    for round in 1..=ROUNDS {
        for (client, _) in held.iter_mut().chain(&mut free) {
            client.send(&request(round, "echo", b"kept"));
        }
        // The realm goes on speaking to everybody.
        assert!(game.server.realm.push_all(None, Class::Reliable, 0, "p", &[round]) >= 8);
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
