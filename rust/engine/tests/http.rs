//! Plain HTTP on the game's port: a bounded head, then bytes both ways for the game's HTTP side.

mod common;

use common::{SECOND, Server, Setup, secs};
use engine::event::{Close, Down, LinkId, Transport, Up};
use engine::link::{Ending, Phase};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn asked() -> (Server, LinkId) {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    assert_eq!(server.send(link, GET), b"");
    (server, link)
}

/// The game's HTTP side says so.
fn says(server: &mut Server, link: LinkId, bytes: &[u8]) {
    let downs = server.realm.downs(0);
    let body = downs.store(bytes);
    downs.push(Down::HttpBytes { link, body });
    server.settle();
}

fn drained(server: &Server) -> usize {
    server.ups.iter().filter(|up| matches!(up, Up::HttpDrained { .. })).count()
}

#[test]
fn a_request_is_handed_up_with_its_whole_head_however_it_comes() {
    for piece in 1..=GET.len() {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        GET.chunks(piece).for_each(|piece| _ = server.send(link, piece));
        server.send(link, b"a body");
        let [Up::Opened { transport, tls: false, .. }, Up::HttpBytes { body, .. }, ..] = server.ups[..]
        else {
            panic!("{:?}", server.ups)
        };
        assert_eq!((transport, body.len as usize), (Transport::Http, GET.len()), "the head in one");
        assert_eq!(server.http, [GET, b"a body"].concat());
        assert_eq!(server.events, []);
    }
}

#[test]
fn what_the_game_says_is_sent_as_it_is_and_its_leaving_told() {
    let (mut server, link) = asked();
    says(&mut server, link, b"HTTP/1.1 200 OK\r\n\r\n");
    says(&mut server, link, b"hello");
    assert_eq!(drained(&server), 0);
    // Some is still queued after a flush: not yet.
    let end = server.end(link);
    end.link.handle_sent(3, &mut end.ups);
    server.settle();
    assert_eq!(drained(&server), 0);
    assert_eq!(server.take(link), b"HTTP/1.1 200 OK\r\n\r\nhello");
    assert_eq!(drained(&server), 1);
    server.take(link);
    assert_eq!(drained(&server), 1);
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let (mut server, link) = asked();
    for _ in 0..2 {
        let now = server.now;
        let end = server.end(link);
        end.link.handle_eof(now, &mut end.ups);
        server.settle();
    }
    let ended = server.ups.iter().filter(|up| matches!(up, Up::HttpEnded { .. })).count();
    assert_eq!((ended, server.closed(link)), (1, None));
    server.advance(secs(3600)); // how long an answer may take is the HTTP side's business
    says(&mut server, link, b"late");
    assert_eq!((server.take(link), server.end(link).link.phase()), (b"late".to_vec(), Phase::Http));
    server.realm.downs(0).push(Down::Close { link, why: Close::Closed });
    server.settle();
    assert_eq!((server.closed(link), server.end(link).link.ending()), (Some(Close::Closed), Ending::Drain));
}

#[test]
fn an_answer_that_is_queued_may_take_a_minute_to_leave() {
    let (mut server, link) = asked();
    says(&mut server, link, &[b'x'; 100_000]);
    server.realm.downs(0).push(Down::Close { link, why: Close::Closed });
    server.settle();
    server.advance(secs(60) - 1);
    assert_eq!(server.end(link).link.ending(), Ending::Drain);
    server.advance(1);
    assert_eq!(server.end(link).link.ending(), Ending::Now);
}

#[test]
fn an_http_client_is_paused_and_resumed_like_any() {
    let (mut server, link) = asked();
    server.realm.downs(0).push(Down::Pause { link });
    server.settle();
    server.send(link, b"a body");
    assert_eq!(server.http, GET);
    server.realm.downs(0).push(Down::Resume { link });
    server.settle();
    assert_eq!(server.http, [GET, b"a body"].concat());
}

#[test]
fn a_head_that_does_not_end_meets_the_deadline_or_the_cap() {
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    server.send(link, b"GET / HTTP/1.1\r\n");
    for _ in 0..5 {
        assert_eq!(server.closed(link), None);
        server.send(link, b"X: y\r\n");
        server.advance(SECOND);
    }
    assert_eq!(server.closed(link), Some(Close::HandshakeTimeout));
    let link = server.connect();
    server.send(link, b"GET / HTTP/1.1\r\nX: ");
    let mut said = Vec::new();
    while server.closed(link).is_none() {
        said = server.send(link, &[b'y'; 1000]);
    }
    assert!(said.starts_with(b"HTTP/1.1 431 "));
    assert_eq!((server.closed(link), server.http.len()), (Some(Close::HttpInvalid), 0));
    assert!(!server.ups.iter().any(|up| matches!(up, Up::Opened { .. })));
}

#[test]
fn garbage_gets_its_status() {
    for (bytes, status) in [
        (&b"GET / HTTP/1.1\r\nno colon\r\n\r\n"[..], "400"),
        (b"GET / HTTP/2.0\r\n\r\n", "505"),
        (b"GET \x01 HTTP/1.1\r\n\r\n", "400"),
    ] {
        let mut server = Server::new(&Setup::default());
        let link = server.connect();
        let said = server.send(link, bytes);
        assert!(said.starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
        assert_eq!(server.closed(link), Some(Close::HttpInvalid));
    }
}

#[test]
fn a_port_without_http_says_so() {
    let mut setup = Setup::default();
    setup.link.http = false;
    let mut server = Server::new(&setup);
    let link = server.connect();
    assert!(server.send(link, GET).starts_with(b"HTTP/1.1 404 "));
    assert_eq!((server.closed(link), server.http.len()), (Some(Close::HttpInvalid), 0));
}
