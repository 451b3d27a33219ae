//! A server with real sockets and a game in Rust: the house without Python, inline and with two threads.

mod common;

use std::io::Write;
use std::net::Shutdown;

use common::{Client, Game, on_both, packet, request};
use engine::event::{Close, DownLog};
use wire::packet::PacketKind;

#[test]
fn slow_readers_do_not_delay_a_good_client() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, _| {});
        let mut good = game.connect();
        let mut slow: Vec<_> = (0..200).map(|_| game.connect()).collect();
        let pipelined: Vec<u8> = (0..100).flat_map(|id| request(id, "large", b"")).collect();
        for (round, id) in (1..=20).enumerate() {
            for client in &mut slow {
                let _ = client.stream.write(&pipelined); // as much as it takes; they read nothing
            }
            let before = game.answered;
            good.send(&request(id, "echo", b"good"));
            let turns = game.until(|_| good.packet(PacketKind::Data).is_some());
            // Inline a turn is all of it. With threads an empty turn may pass while a thread works: what counts is
            // that nobody had more than some budgets' worth of answers before.
            if threads == 0 {
                assert!(turns <= 4, "round {round}: {turns} turns");
            }
            assert!(game.answered - before <= 3 * 128 * 201, "round {round}");
        }
        // They wait, unread, with what their sockets took and a bounded queue; nobody had to be closed.
        assert_eq!(game.closed(Close::Slow), 0);
        assert_eq!(game.server.connections(), 201);
        game.end();
    });
}

#[test]
fn what_a_closing_client_has_not_taken_yet_still_arrives() {
    on_both(|threads| {
        let mut game = Game::new(threads, |options, _| {
            options.queue_bytes_max = 64 << 20;
            options.realm.queue_bytes_max = 64 << 20;
        });
        game.large = vec![7; 400_001];
        game.answers_bytes_max = u32::MAX;
        let mut client = game.connect();
        // More than the sockets' buffers hold, so that the queue is blocked when the end comes.
        let asked: Vec<u8> = (0..120).flat_map(|id| request(id, "large", b"")).collect();
        client.send(&asked);
        game.until(|game| game.answered == 120);
        let key = game.server.realm.sessions().next().unwrap();
        game.server.realm.close(game.server.now(), key);
        let mut got = 0;
        game.until(|_| {
            while client.packet(PacketKind::Data).is_some() {
                got += 1;
            }
            client.is_ended()
        });
        while client.packet(PacketKind::Data).is_some() {
            got += 1;
        }
        assert_eq!(got, 120);
        game.until(|game| game.closed(Close::Closed) == 1);
        game.end();
    });
}

#[test]
fn a_flood_of_one_puts_off_nobodys_heartbeat_or_deadline() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, link| {
            link.heartbeat = 50_000_000;
            link.missed_max = 1000;
            link.handshake_timeout = 200_000_000;
        });
        let mut floods: Vec<_> = (0..6).map(|_| game.connect()).collect();
        let mut good = game.connect();
        let mut silent = Client::new(game.address);
        let heartbeats = packet(PacketKind::Heartbeat, b"").repeat(16 << 10);
        let (mut beats, mut turns) = (0, 0);
        game.until(|_| {
            // There is always more of it than one pass takes; and they are not in step, so that never all are done.
            turns += 1;
            for flood in floods.iter_mut().take(turns / 20) {
                let _ = flood.stream.write(&heartbeats);
            }
            beats += usize::from(good.packet(PacketKind::Heartbeat).is_some());
            beats >= 3 && turns > 400 && silent.is_ended()
        });
        assert_eq!(game.closed(Close::HandshakeTimeout), 1);
        game.end();
    });
}

#[test]
fn who_has_not_said_what_it_speaks_does_not_hold_the_shutdown() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, link| link.handshake_timeout = 3600 * 1_000_000_000);
        let mut silent = Client::new(game.address);
        let mut half = Client::new(game.address);
        half.send(b"GET / HTTP/1.1\r\nHost");
        let mut player = game.connect();
        game.until(|game| game.server.connections() == 3);
        player.send(&request(1, "echo", b"x"));
        game.until(|_| player.packet(PacketKind::Data).is_some());
        game.server.stop_listening();
        game.until(|game| silent.is_ended() && half.is_ended() && game.closed(Close::Shutdown) == 2);
        assert_eq!(game.server.connections(), 1, "who plays is the realm's business");
        player.send(&request(2, "echo", b"y"));
        game.until(|_| player.packet(PacketKind::Data).is_some());
        game.end();
    });
}

#[test]
fn a_panic_while_a_wish_is_done_ends_that_link_alone() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, _| {});
        let (mut first, mut second) = (game.connect(), game.connect());
        let links: Vec<_> = game.server.realm.sessions().collect();
        let link = game.server.realm.session(links[0]).unwrap().link().unwrap();
        // No realm says this: a route of 300 bytes has no encoding.
        let downs: &mut DownLog = game.server.realm.downs(link.reactor());
        let route = downs.store(&[b'a'; 300]);
        downs.push(engine::event::Down::Push {
            link,
            class: engine::event::Class::Reliable,
            key: 0,
            route,
            body: route,
        });
        game.until(|game| game.closed(Close::Panic) == 1);
        game.until(|_| first.is_ended() || second.is_ended());
        let mut other = if first.is_ended() { second } else { first };
        other.send(&request(1, "echo", b"still here"));
        game.until(|_| other.packet(PacketKind::Data).is_some());
        game.end();
    });
}

#[test]
fn while_the_logic_thread_rests_threads_stop_reading_and_nothing_is_lost() {
    let mut game = Game::new(2, |_, _| {});
    let mut clients: Vec<_> = (0..8).map(|_| game.connect()).collect();
    // The logic thread takes no turn while the threads' queues fill: each write is a burst, so a log.
    for round in 0..40 {
        for client in &mut clients {
            client.send(&request(round, "echo", b"kept"));
        }
    }
    let mut got = vec![0; clients.len()];
    game.until(|_| {
        for (client, got) in clients.iter_mut().zip(&mut got) {
            while let Some(body) = client.packet(PacketKind::Data) {
                assert_eq!(body, [&[4, *got as u8][..], b"kept"].concat(), "in order");
                *got += 1;
            }
        }
        got.iter().all(|&got| got == 40)
    });
    game.end();
}

#[test]
fn caps_are_kept_across_threads() {
    on_both(|threads| {
        let mut game = Game::new(threads, |options, _| options.connections_max = 2);
        let (mut first, _second) = (game.connect(), game.connect());
        let mut third = Client::new(game.address);
        game.until(|_| third.is_ended());
        first.stream.shutdown(Shutdown::Both).unwrap();
        game.until(|game| game.server.connections() == 1);
        game.connect();
        first.ended = true;
        game.end();
    });
}

#[test]
fn the_last_request_of_who_ends_its_half_is_answered() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, _| {});
        for hold in [false, true] {
            let mut client = game.connect();
            // In one receive, or nearly: the request, and the end of the stream.
            client.send(&request(7, if hold { "hold" } else { "echo" }, b"last"));
            client.stream.shutdown(Shutdown::Write).unwrap();
            if hold {
                game.until(|game| !game.held.is_empty());
                let (key, link, id) = game.held.pop().unwrap();
                game.server.realm.respond(key, link, id, b"last");
            }
            game.until(|_| client.is_ended());
            assert_eq!(client.packet(PacketKind::Data).unwrap(), b"\x04\x07last");
        }
        game.until(|game| game.closed(Close::Left) == 2 && game.server.connections() == 0);
        game.end();
    });
}

#[test]
fn a_thread_that_ends_says_why_and_what_became_of_its_clients() {
    let mut game = Game::new(2, |_, _| {});
    let mut clients: Vec<_> = (0..16).map(|_| game.connect()).collect();
    assert_eq!(game.server.failure(), None);
    let keys: Vec<_> = game.server.realm.sessions().collect();
    let of_first = |game: &Game| {
        let links = keys.iter().filter_map(|&key| game.server.realm.session(key)?.link());
        links.filter(|link| link.reactor() == 1).count()
    };
    let lost = of_first(&game);
    // No realm says this: a route of 300 bytes has no encoding.
    let downs: &mut DownLog = game.server.realm.downs(1);
    let (targets, route) = (downs.store(b""), downs.store(&[b'a'; 300]));
    let class = engine::event::Class::Reliable;
    downs.push(engine::event::Down::Broadcast { targets, class, key: 0, route, body: route });
    game.until(|game| game.server.failure().is_some());
    let why = game.server.failure().unwrap();
    assert!(why.starts_with("I/O thread 1 of 2 has ended: it panicked: a route has at most 255"), "{why}");
    // Its clients are told of as lost; the others play on, and new ones can come.
    game.until(|game| of_first(game) == 0 && game.closed(Close::Reset) == lost as u64);
    clients.retain_mut(|client| !client.is_ended());
    assert_eq!(clients.len(), 16 - lost);
    clients.push(game.connect());
    for client in &mut clients {
        client.send(&request(1, "echo", b"still here"));
        game.until(|_| client.packet(PacketKind::Data).is_some());
    }
    game.end();
}
