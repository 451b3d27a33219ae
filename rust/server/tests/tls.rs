//! TLS on the whole server: how it may end, how long it may take, and what may be inside.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::tls::{Certificate, TlsStream};
use common::{Client, Game, hello, on_both, request};
use engine::event::Close;
use net::reactor::ReactorStats;
use wire::packet::PacketKind;

impl Game {
    fn tls(threads: u8, certificate: &Certificate, handshake_timeout: Duration) -> Self {
        Self::new(threads, |options, link| {
            certificate.give(options);
            link.handshake_timeout = handshake_timeout.as_nanos() as u64;
        })
    }

    /// Connections that began to speak TLS, broke its rules, or were cut off.
    fn counts(&mut self) -> (u64, u64, u64) {
        let all = self.server.socket_stats();
        let sum = |count: fn(&ReactorStats) -> u64| all.iter().map(count).sum();
        (sum(|stats| stats.tls), sum(|stats| stats.tls_failed), sum(|stats| stats.tls_truncated))
    }
}

const PATIENT: Duration = Duration::from_secs(60);

#[test]
fn a_stream_that_is_cut_off_is_lost_and_one_that_ends_has_left() {
    on_both(|threads| {
        let certificate = Certificate::new(&format!("cut-{threads}"));
        let mut game = Game::tls(threads, &certificate, PATIENT);
        // In the middle of a record, between two, and in the handshake: no end was announced.
        let mut client = game.join(Client::over(TlsStream::new(game.address, &certificate)));
        client.stream.drips = true;
        client.send(&request(1, "echo", b"never whole"));
        let half = client.stream.outgoing.len() / 2;
        client.stream.tcp.write_all(&client.stream.outgoing[..half]).unwrap();
        client.stream.tcp.shutdown(Shutdown::Write).unwrap();
        game.until(|game| game.closed(Close::Reset) == 1 && game.counts() == (1, 0, 1));
        assert_eq!(game.answered, 0);

        let client = game.join(Client::over(TlsStream::new(game.address, &certificate)));
        client.stream.tcp.shutdown(Shutdown::Write).unwrap();
        game.until(|game| game.closed(Close::Reset) == 2 && game.counts() == (2, 0, 2));

        let mut client = TlsStream::new(game.address, &certificate);
        client.drips = true;
        (0..20).for_each(|_| client.drip());
        client.tcp.shutdown(Shutdown::Write).unwrap();
        game.until(|game| game.closed(Close::Reset) == 3 && game.counts() == (3, 0, 3));

        // Announced: what was asked before is answered.
        let mut client = game.join(Client::over(TlsStream::new(game.address, &certificate)));
        client.send(&request(1, "echo", b"last"));
        client.stream.close_notify();
        game.until(|_| client.is_ended());
        assert_eq!(client.packet(PacketKind::Data).unwrap(), b"\x04\x01last");
        client.stream.tcp.shutdown(Shutdown::Both).unwrap();
        game.until(|game| game.closed(Close::Left) == 1 && game.server.connections() == 0);
        assert_eq!(game.counts(), (4, 0, 3));
        game.end();
    });
}

#[test]
fn what_breaks_the_rules_of_tls_is_counted_as_that() {
    on_both(|threads| {
        let certificate = Certificate::new(&format!("rules-{threads}"));
        let mut game = Game::tls(threads, &certificate, PATIENT);
        let mut hostile = Client::new(game.address);
        hostile.send(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]);
        game.until(|game| hostile.is_ended() && game.counts() == (1, 1, 0));
        assert_eq!(hostile.received[0], 0x15, "it is told by an alert");

        // A record that nobody encrypted, in the middle of a game.
        let mut client = game.join(Client::over(TlsStream::new(game.address, &certificate)));
        client.stream.tcp.write_all(&[0x17, 3, 3, 0, 20]).unwrap();
        client.stream.tcp.write_all(&[7; 20]).unwrap();
        game.until(|game| client.is_ended() && game.counts() == (2, 2, 0));
        game.until(|game| game.closed(Close::Reset) == 1);
        game.end();
    });
}

#[test]
fn there_is_one_deadline_from_accept_to_the_handshake() {
    on_both(|threads| {
        let certificate = Certificate::new(&format!("deadline-{threads}"));
        let timeout = Duration::from_millis(600);
        let mut game = Game::tls(threads, &certificate, timeout);
        let began = Instant::now();
        // One never ends its TLS handshake. The other does, late, and then never ends that of the game.
        let (mut first, mut second) =
            (TlsStream::new(game.address, &certificate), TlsStream::new(game.address, &certificate));
        first.drips = true;
        second.drips = true;
        second.write_all(&hello()[..10]).unwrap();
        let sends = |stream: &mut TlsStream| {
            // A reset is an answer, too.
            let _ = stream.outgoing.is_empty() || stream.tcp.write_all(&stream.outgoing[..1]).is_ok();
        };
        game.until(|game| {
            if first.outgoing.len() > 1 {
                sends(&mut first);
                first.outgoing.remove(0);
            } else if first.outgoing.is_empty() {
                first.drip();
            }
            if began.elapsed() > timeout * 2 / 3 && second.drips {
                second.drips = false;
                second.drip();
            }
            game.closed(Close::HandshakeTimeout) == 2
        });
        let elapsed = began.elapsed();
        assert!(!first.outgoing.is_empty(), "it was still sending");
        assert!(elapsed >= timeout && elapsed < timeout * 3 / 2, "{elapsed:?}");
        assert_eq!(game.counts(), (2, 0, 0));
        game.end();
    });
}

#[test]
fn inside_tls_the_protocol_is_told_once_more() {
    on_both(|threads| {
        let certificate = Certificate::new(&format!("inside-{threads}"));
        let mut game = Game::tls(threads, &certificate, PATIENT);
        for (protocol, ask, answer) in common::CONVERSATIONS {
            let mut client = Client::over(TlsStream::new(game.address, &certificate));
            client.send(&ask());
            game.until(|_| {
                client.receive();
                answer(&client.received)
            });
            assert!(!client.stream.is_handshaking(), "{protocol}");
        }
        // Nothing that we speak, and TLS again.
        for (count, garbage) in [(1, &b"\x09\0\0\0"[..]), (2, b"\x16\x03\x01\x00\x05hello")] {
            let mut client = Client::over(TlsStream::new(game.address, &certificate));
            client.send(garbage);
            game.until(|game| client.is_ended() && game.closed(Close::UnknownProtocol) == count);
        }
        assert_eq!(game.counts().0, common::CONVERSATIONS.len() as u64 + 2);
        game.end();
    });
}
