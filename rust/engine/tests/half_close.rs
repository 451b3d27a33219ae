//! A client that sends its last request and ends its half of the stream: it gets its answers, and then the close.

mod common;

use common::{SECOND, Server, Setup, hex};
use engine::event::{Class, Close, LinkId};
use engine::link::{Ending, Phase};
use engine::realm::{Left, SessionKey};

/// A request with this id and no body.
fn request(id: u8, route: &str) -> Vec<u8> {
    [&[4, 0, 0, 3 + route.len() as u8, 0, id, route.len() as u8][..], route.as_bytes()].concat()
}

/// Its answer `x`.
fn answer(id: u8) -> Vec<u8> {
    vec![4, 0, 0, 3, 4, id, b'x']
}

fn joined() -> (Server, LinkId, SessionKey) {
    let mut server = Server::new(&Setup::default());
    let (link, session) = server.join();
    (server, link, session)
}

/// Requests arrive, and the end of the stream with them: nobody has answered yet.
fn ends_behind(server: &mut Server, link: LinkId, requests: &[Vec<u8>]) {
    let now = server.now;
    let end = server.end(link);
    end.feed(now, &requests.concat());
    end.link.handle_eof(now, &mut end.ups);
    server.settle();
}

#[test]
fn what_is_answered_at_once_is_answered_and_then_it_has_left() {
    let (mut server, link, _) = joined();
    ends_behind(&mut server, link, &[request(1, "echo"), request(2, "nowhere")]);
    let said = server.take(link);
    assert!(said.starts_with(&hex("04 00 00 06 04 01 6e 75 6c 6c 04")), "{said:?}");
    assert!(String::from_utf8_lossy(&said).contains("GS-404"), "{said:?}");
    assert_eq!((server.closed(link), server.end(link).link.ending()), (Some(Close::Left), Ending::Drain));
    assert_eq!(server.left(), [Left::Left]);
}

#[test]
fn answers_that_take_their_time_are_waited_for_and_pushes_go_on() {
    let (mut server, link, session) = joined();
    ends_behind(&mut server, link, &[request(1, "hold"), request(2, "hold")]);
    assert_eq!((server.closed(link), server.end(link).link.phase()), (None, Phase::Ended));
    server.advance(SECOND);
    server.realm.push(session, Class::Reliable, 0, "a", b"b").unwrap();
    server.realm.respond(session, link, 2, b"x");
    server.settle();
    assert_eq!(server.take(link), [&[4, 0, 0, 4, 6, 1, b'a', b'b'][..], &answer(2)].concat());
    assert_eq!((server.closed(link), server.left()), (None, vec![]));
    server.realm.respond(session, link, 1, b"x");
    server.settle();
    assert_eq!(server.take(link), answer(1));
    assert_eq!((server.closed(link), server.left()), (Some(Close::Left), vec![Left::Left]));
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_as_long_as_a_closing_client() {
    let (mut server, link, _) = joined();
    ends_behind(&mut server, link, &[request(1, "hold")]);
    server.advance(5 * SECOND - 1);
    assert_eq!(server.closed(link), None);
    server.advance(1);
    assert_eq!((server.closed(link), server.left()), (Some(Close::Left), vec![Left::Left]));
}

#[test]
fn who_is_owed_nothing_leaves_at_once() {
    let (mut server, link, session) = joined();
    server.send(link, &request(1, "echo"));
    server.send(link, &request(2, "hold"));
    server.realm.respond(session, link, 2, b"x");
    server.settle();
    let now = server.now;
    let end = server.end(link);
    end.link.handle_eof(now, &mut end.ups);
    server.settle();
    assert_eq!((server.closed(link), server.left()), (Some(Close::Left), vec![Left::Left]));
}

#[test]
fn who_does_not_wait_for_its_answers_has_left_all_the_same() {
    let (mut server, link, _) = joined();
    ends_behind(&mut server, link, &[request(1, "hold")]);
    let now = server.now;
    let end = server.end(link);
    end.link.handle_end(now, Close::Reset, &mut end.ups);
    server.settle();
    assert_eq!((server.closed(link), server.left()), (Some(Close::Left), vec![Left::Left]));
}

#[test]
fn a_kick_ends_the_wait() {
    let (mut server, link, session) = joined();
    ends_behind(&mut server, link, &[request(1, "hold")]);
    server.realm.kick(server.now, session, "kick");
    server.settle();
    assert!(server.take(link).starts_with(&[5, 0, 0, 17]));
    assert_eq!((server.closed(link), server.left()), (Some(Close::Kicked), vec![Left::Kicked]));
}
