//! The rules of sessions: who is here, under which name, in which groups, and how each one ends.

mod common;

use common::{Authenticate, HANDSHAKE, SECOND, START, Server, Setup, hex, secs, spaced};
use engine::event::{Class, Close, Down, LinkId, Transport, Up, UpLog};
use engine::realm::{
    AcceptError, Bodies, Event, Left, PushError, Realm, RealmConfig, SchemaDocument, SessionKey,
};
use engine::session::State;
use wire::handshake::Serializer;

fn server() -> Server {
    Server::new(&Setup::default())
}

/// A server whose sessions wait ten seconds for their client to come back.
fn graceful() -> Server {
    let mut setup = Setup::default();
    setup.realm.resume_grace = secs(10);
    Server::new(&setup)
}

/// Somebody joins under this name.
fn join_as(server: &mut Server, uid: &str) -> (LinkId, SessionKey) {
    server.authenticate = Authenticate::Uid(uid.to_owned());
    server.join()
}

/// The same, and can come back.
fn join_to_return(server: &mut Server, uid: &str) -> (LinkId, SessionKey) {
    server.authenticate = Authenticate::Uid(uid.to_owned());
    server.join_with(br#"{"sys":{"gs":{"resume":{}}}}"#)
}

/// Somebody knocks and is not answered.
fn knock(server: &mut Server) -> (LinkId, SessionKey) {
    server.authenticate = Authenticate::Wait;
    let link = server.connect();
    server.send(link, &HANDSHAKE.concat());
    (link, server.realm.session_of(link).unwrap())
}

/// A link's socket ends.
fn end(server: &mut Server, link: LinkId, why: Close) {
    let now = server.now;
    let end = server.end(link);
    end.link.handle_end(now, why, &mut end.ups);
    server.settle();
}

fn push(server: &mut Server, session: SessionKey, body: &[u8]) -> Result<(), PushError> {
    server.realm.push(session, Class::Reliable, 0, "a", body)
}

fn state(server: &Server, session: SessionKey) -> Option<State> {
    server.realm.session(session).map(|session| session.state())
}

fn members(server: &Server, group: &str) -> Vec<SessionKey> {
    let group = server.realm.find_group(group).unwrap();
    server.realm.group_members(group).collect()
}

// -- joining and leaving ---------------------------------------------------------------------------------------------

#[test]
fn a_session_leaves_once_whatever_ends_it() {
    for (why, left, story) in [
        (Close::Reset, Left::Lost, "knocked joined dropped left"),
        (Close::Silent, Left::Lost, "knocked joined dropped left"),
        (Close::Slow, Left::Lost, "knocked joined dropped left"),
        (Close::Panic, Left::Lost, "knocked joined dropped left"),
        (Close::Left, Left::Left, "knocked joined left"),
        (Close::PacketType, Left::Kicked, "knocked joined left"),
        (Close::HandshakeTwice, Left::Kicked, "knocked joined left"),
        (Close::MessageInvalid, Left::Kicked, "knocked joined left"),
    ] {
        let mut server = server();
        let (link, session) = server.join();
        end(&mut server, link, why);
        for _ in 0..2 {
            end(&mut server, link, Close::Reset);
            server.realm.kick(session, "again");
            server.realm.close(session);
            server.realm.shutdown("again");
            server.advance(secs(100));
        }
        assert_eq!((server.story().as_str(), server.left()), (story, vec![left]), "{why:?}");
        assert_eq!(server.realm.stats().closed(why), 1);
        assert!(state(&server, session).is_none() && server.realm.sessions().next().is_none());
    }
}

#[test]
fn what_the_server_ends_leaves_at_once_and_once() {
    type End = fn(&mut Realm, SessionKey);
    let ends: [(End, Left, Close); 3] = [
        (|realm, session| realm.kick(session, "go"), Left::Kicked, Close::Kicked),
        (|realm, session| realm.close(session), Left::Kicked, Close::Closed),
        (|realm, _| realm.shutdown("bye"), Left::Shutdown, Close::Shutdown),
    ];
    for (end, left, why) in ends {
        let mut server = server();
        let (link, session) = server.join();
        end(&mut server.realm, session);
        // Before its link knows of it, the session takes and gets nothing more.
        assert_eq!(state(&server, session), Some(State::Closed));
        assert_eq!(push(&mut server, session, b"{}"), Err(PushError::Closed));
        assert_eq!(server.realm.admit(server.now, link, None, 0), None);
        end(&mut server.realm, session);
        server.settle();
        assert_eq!((server.story().as_str(), server.left()), ("knocked joined left", vec![left]));
        assert_eq!(server.closed(link), Some(why));
        assert_eq!(server.realm.stats().closed(why), 1);
    }
}

#[test]
fn a_session_can_be_asked_while_its_end_is_told_and_not_after() {
    let mut server = server();
    let (_, session) = join_as(&mut server, "ann");
    server.realm.kick(session, "go");
    assert_eq!(server.realm.poll_event(), Some(Event::Left { session, why: Left::Kicked }));
    assert_eq!(server.realm.session(session).unwrap().uid(), Some("ann"));
    assert_eq!(server.realm.poll_event(), None);
    assert!(server.realm.session(session).is_none());
    // Its place is another's then, and its key nobody's.
    let (_, other) = server.join();
    assert_eq!((other.slot, state(&server, session)), (session.slot, None));
    assert_ne!(other, session);
}

#[test]
fn who_does_not_join_leaves_nothing_behind() {
    let mut server = server();
    let (refused, session) = knock(&mut server);
    server.realm.refuse(session, "no", "not you");
    let (kicked, session) = knock(&mut server);
    server.realm.kick(session, "go");
    let (cut, _) = knock(&mut server);
    end(&mut server, cut, Close::Reset);
    let (late, session) = knock(&mut server);
    server.advance(secs(11));
    assert_eq!(server.realm.accept(session, None), Err(AcceptError::Closed));
    assert_eq!(server.left(), []);
    assert_eq!(server.story().matches("gone").count(), 4);
    let whys = [refused, kicked, cut, late].map(|link| server.closed(link).unwrap());
    assert_eq!(whys, [Close::Refused, Close::Kicked, Close::Reset, Close::AuthTimeout]);
    assert_eq!(server.realm.next_deadline(), None);
}

#[test]
fn shutdown_kicks_everybody_in_order() {
    let mut server = server();
    let (ann, _) = server.join();
    let (bob, _) = server.join();
    let (knocking, _) = knock(&mut server);
    server.realm.shutdown("maintenance");
    server.settle();
    let kick = r#"{"reason":"maintenance"}"#;
    for link in [ann, bob] {
        let said = server.take(link);
        assert_eq!((said[0], String::from_utf8_lossy(&said[4..]).as_ref()), (5, kick));
        assert_eq!(server.closed(link), Some(Close::Shutdown));
    }
    assert_eq!((server.take(knocking), server.closed(knocking)), (vec![], Some(Close::Shutdown)));
    assert_eq!(server.left(), [Left::Shutdown, Left::Shutdown]);
}

// -- ids and names ---------------------------------------------------------------------------------------------------

#[test]
fn ids_are_unique_across_nodes_and_never_come_again() {
    let mut ids = Vec::new();
    for node in [0, 1, 2, (1 << 28) - 1] {
        let mut setup = Setup::default();
        setup.realm.node = node;
        let mut server = Server::new(&setup);
        for _ in 0..100 {
            let (link, session) = server.join();
            let id = server.realm.session_id(session).unwrap();
            assert_eq!(id >> 36, u64::from(node));
            ids.push(id);
            end(&mut server, link, Close::Left);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 400);
}

#[test]
fn a_new_login_replaces_the_old_session() {
    let mut server = server();
    let (old_link, old) = join_as(&mut server, "ann");
    let (_, new) = join_as(&mut server, "ann");
    assert_eq!(server.realm.user("ann"), Some(new));
    assert_eq!(server.left(), [Left::Replaced]);
    assert_eq!(server.closed(old_link), Some(Close::Replaced));
    assert!(server.take(old_link).starts_with(&hex("05 00 00 15")));
    // A late end of the old one, by whatever way, does not unbind the new.
    end(&mut server, old_link, Close::Reset);
    server.realm.kick(old, "late");
    server.realm.close(old);
    server.settle();
    assert_eq!((server.realm.user("ann"), state(&server, new)), (Some(new), Some(State::Active)));
    assert_eq!(server.story(), "knocked joined knocked left joined");
    server.realm.kick(new, "go");
    assert_eq!(server.realm.user("ann"), None);
}

#[test]
fn or_it_is_refused_as_configured() {
    let mut setup = Setup::default();
    setup.realm.replace = false;
    let mut server = Server::new(&setup);
    let (_, old) = join_as(&mut server, "ann");
    let (link, new) = knock(&mut server);
    assert_eq!(server.realm.accept(new, Some("ann")), Err(AcceptError::UidTaken));
    server.settle();
    let said = String::from_utf8_lossy(&server.take(link)).into_owned();
    assert!(said.contains("GS-409"), "{said}");
    assert_eq!(server.closed(link), Some(Close::Refused));
    assert_eq!((server.realm.user("ann"), server.left().len()), (Some(old), 0));
}

#[test]
fn of_two_logins_at_once_the_later_answer_wins() {
    let mut server = server();
    let ((first, ann), (second, ann_again)) = (knock(&mut server), knock(&mut server));
    server.realm.accept(ann_again, Some("ann")).unwrap();
    server.realm.accept(ann, Some("ann")).unwrap();
    assert_eq!(server.realm.accept(ann, Some("bob")), Err(AcceptError::Closed), "once");
    server.settle();
    assert_eq!(server.realm.user("ann"), Some(ann));
    assert_eq!((server.closed(first), server.closed(second)), (None, Some(Close::Replaced)));
    server.send(first, &hex("02 00 00 00"));
    assert_eq!(server.story(), "knocked knocked gone joined");
}

#[test]
fn a_guest_has_no_name() {
    let mut server = server();
    let (_, session) = server.join();
    assert_eq!(server.realm.session(session).unwrap().uid(), None);
}

// -- groups ----------------------------------------------------------------------------------------------------------

#[test]
fn membership_ends_with_the_session() {
    let mut server = server();
    let ((ann_link, ann), (_, bob)) = (server.join(), server.join());
    let (red, blue) = (server.realm.group("red"), server.realm.group("blue"));
    for session in [ann, bob] {
        assert!(server.realm.group_add(red, session) && server.realm.group_add(blue, session));
    }
    assert!(!server.realm.group_add(red, ann), "it is one already");
    assert!(server.realm.group_remove(blue, bob) && !server.realm.group_remove(blue, bob));
    end(&mut server, ann_link, Close::Left);
    assert_eq!((members(&server, "red"), members(&server, "blue")), (vec![bob], vec![]));
    assert!(!server.realm.group_add(red, ann), "it is gone");
    assert!(server.realm.group_forget(blue) && !server.realm.group_forget(red));
    assert_eq!((server.realm.find_group("blue"), server.realm.group_len(red)), (None, 1));
}

#[test]
fn while_its_end_is_told_a_session_is_in_no_group_and_joins_none() {
    let mut server = server();
    let (_, ann) = server.join();
    let red = server.realm.group("red");
    server.realm.group_add(red, ann);
    server.realm.kick(ann, "go");
    assert!(matches!(server.realm.poll_event(), Some(Event::Left { .. })));
    assert_eq!((server.realm.group_len(red), server.realm.group_add(red, ann)), (0, false));
}

// -- pushes ----------------------------------------------------------------------------------------------------------

#[test]
fn a_broadcast_is_one_down_for_each_reactor() {
    let mut realm =
        Realm::new(RealmConfig { reactors: 3, ..RealmConfig::default() }, Setup::default().link.routes);
    let mut log = UpLog::default();
    let (address, body) = (log.store(b"unix"), log.store(b"{}"));
    let mut links = Vec::new();
    for slot in 0..30 {
        let link = LinkId::new(slot as u8 % 3, slot, 1);
        links.push(link);
        realm.handle_up(START, &Up::Opened { link, transport: Transport::Tcp, tls: false, address }, &log);
        realm.handle_up(START, &Up::Handshake { link, body }, &log);
        let session = realm.session_of(link).unwrap();
        realm.accept(session, None).unwrap();
        realm.handle_up(START, &Up::Ready { link }, &log);
    }
    (0..3).for_each(|reactor| realm.downs(reactor).clear());
    let skipped = realm.session_of(links[4]);
    assert_eq!(realm.push_all(skipped, Class::Reliable, 0, "a", &b"hello"[..]), 29);
    for reactor in 0..3 {
        let downs = realm.downs(reactor);
        let [Down::Broadcast { targets, class: Class::Reliable, route, body, .. }] = downs.events[..] else {
            panic!("{:?}", downs.events)
        };
        assert_eq!((downs.bytes(route), downs.bytes(body)), (&b"a"[..], &b"hello"[..]));
        let targets = downs.bytes(targets).chunks_exact(8);
        let targets: Vec<LinkId> =
            targets.map(|bits| LinkId::from_bits(u64::from_le_bytes(bits.try_into().unwrap()))).collect();
        let expected = links.iter().filter(|link| link.reactor() == reactor && **link != links[4]);
        assert_eq!(targets, expected.copied().collect::<Vec<_>>());
    }
}

#[test]
fn a_group_is_pushed_to_and_everybody_is() {
    let mut server = server();
    let ((ann_link, ann), (bob_link, bob), (eve_link, _)) = (server.join(), server.join(), server.join());
    let red = server.realm.group("red");
    server.realm.group_add(red, bob);
    server.realm.group_add(red, ann);
    assert_eq!(server.realm.push_group(red, Some(ann), Class::Reliable, 0, "a", &b"red"[..]), 1);
    assert_eq!(server.realm.push_all(Some(bob), Class::Reliable, 0, "b", &b"all"[..]), 2);
    server.settle();
    let said = [ann_link, bob_link, eve_link].map(|link| spaced(&server.take(link)));
    let all = "04 00 00 06 06 01 62 61 6c 6c";
    assert_eq!(said, [all, "04 00 00 06 06 01 61 72 65 64", all]);
}

#[test]
fn who_has_not_joined_is_not_pushed_to() {
    let mut server = server();
    let (link, session) = knock(&mut server);
    assert_eq!(push(&mut server, session, b"{}"), Err(PushError::Closed));
    server.realm.accept(session, None).unwrap();
    assert_eq!(push(&mut server, session, b"{}"), Err(PushError::Closed));
    assert_eq!(server.realm.push_all(None, Class::Reliable, 0, "a", &b"{}"[..]), 0);
    server.settle();
    assert_eq!(server.take(link)[0], 1, "the answer and nothing else");
    assert_eq!(server.realm.session(session).unwrap().queued_bytes(), 0);
}

#[test]
fn bodies_toward_json_clients_are_never_empty_and_others_stay_as_they_are() {
    for (gs, push_body, answer) in [("json", "7b 7d", "6e 75 6c 6c"), ("protobuf", "", "")] {
        let mut server = server();
        let link = server.connect();
        let handshake = format!(r#"{{"sys":{{"gs":{{"serializer":"{gs}"}}}}}}"#);
        server.send(link, &[&[1, 0, 0, handshake.len() as u8][..], handshake.as_bytes()].concat());
        server.send(link, &hex("02 00 00 00"));
        let session = server.realm.session_of(link).unwrap();
        push(&mut server, session, b"").unwrap();
        server.realm.push_all(None, Class::Reliable, 0, "a", &b""[..]);
        let charged = server.realm.session(session).unwrap().queued_bytes();
        assert_eq!(charged as usize, 2 * (16 + 1 + hex(push_body).len()));
        let said = spaced(&server.send(link, &hex("04 00 00 07 00 01 04 65 63 68 6f")));
        let push = format!("04 00 00 0{} 06 01 61 {push_body} ", 3 + hex(push_body).len()).replace("  ", " ");
        let answer = format!("04 00 00 0{} 04 01 {answer}", 2 + hex(answer).len());
        assert_eq!(said, format!("{push}{push}{answer}").trim_end());
    }
}

#[test]
fn what_is_too_long_for_a_packet_is_not_pushed() {
    let mut server = server();
    let (link, session) = server.join();
    let route = "r".repeat(256);
    assert_eq!(server.realm.push(session, Class::Reliable, 0, &route, b""), Err(PushError::TooLong));
    let body = vec![0; 1 << 24];
    assert_eq!(push(&mut server, session, &body), Err(PushError::TooLong));
    assert_eq!(server.realm.push_all(None, Class::Latest, 0, "a", &body[..]), 0);
    server.realm.respond(session, link, 1, &body);
    server.settle();
    let said = server.take(link);
    assert!(String::from_utf8_lossy(&said).contains("GS-500"));
    assert_eq!(server.closed(link), None);
}

#[test]
fn what_may_be_dropped_is_dropped_when_a_log_is_full() {
    let mut setup = Setup::default();
    setup.realm.down_bytes_max = 1000;
    let mut server = Server::new(&setup);
    let (_, session) = server.join();
    let mut push = |class| server.realm.push(session, class, 0, "a", &[0; 600]);
    assert_eq!(push(Class::Latest), Ok(()));
    assert_eq!((push(Class::Latest), push(Class::Droppable)), (Err(PushError::Full), Err(PushError::Full)));
    assert_eq!(push(Class::Reliable), Ok(()));
    server.realm.push_all(None, Class::Droppable, 0, "a", &[0; 600][..]);
    assert_eq!((server.realm.stats().dropped, server.realm.downs(0).events.len()), (3, 2));
}

// -- coming back -----------------------------------------------------------------------------------------------------

#[test]
fn a_cut_session_waits_for_its_grace_and_then_leaves() {
    let mut server = graceful();
    let (link, session) = join_to_return(&mut server, "ann");
    let red = server.realm.group("red");
    server.realm.group_add(red, session);
    end(&mut server, link, Close::Reset);
    assert_eq!(
        (server.story().as_str(), state(&server, session)),
        ("knocked joined dropped", Some(State::Pending))
    );
    // It is still who it is, and what is pushed waits for it, at no charge.
    assert_eq!((server.realm.user("ann"), members(&server, "red")), (Some(session), vec![session]));
    assert_eq!(push(&mut server, session, b"{}"), Ok(()));
    assert_eq!(server.realm.push_all(None, Class::Reliable, 0, "a", &b"{}"[..]), 0, "none was reached");
    assert_eq!(server.realm.session(session).unwrap().queued_bytes(), 0);
    server.advance(secs(10) - 1);
    assert_eq!(server.story(), "knocked joined dropped");
    server.advance(SECOND / 100);
    assert_eq!((server.story().as_str(), server.left()), ("knocked joined dropped left", vec![Left::Lost]));
    assert_eq!((server.realm.user("ann"), members(&server, "red")), (None, vec![]));
}

#[test]
fn a_client_that_left_in_good_order_is_not_waited_for() {
    let mut server = graceful();
    let (link, _) = server.join();
    end(&mut server, link, Close::Left);
    assert_eq!((server.story().as_str(), server.left()), ("knocked joined left", vec![Left::Left]));
}

#[test]
fn a_session_that_waits_can_be_kicked_and_replaced() {
    let mut server = graceful();
    let (link, ann) = join_to_return(&mut server, "ann");
    end(&mut server, link, Close::Reset);
    let (_, again) = join_to_return(&mut server, "ann");
    assert_eq!((server.left(), server.realm.user("ann")), (vec![Left::Replaced], Some(again)));
    assert_eq!(state(&server, ann), None);
    let link = server.realm.session(again).unwrap().link().unwrap();
    end(&mut server, link, Close::Silent);
    server.realm.kick(again, "go");
    server.settle();
    assert_eq!(server.left(), [Left::Replaced, Left::Kicked]);
    server.advance(secs(100));
    assert_eq!((server.left().len(), server.realm.next_deadline()), (2, None));
}

// -- timers ----------------------------------------------------------------------------------------------------------

#[test]
fn timers_of_the_game_come_in_order_and_can_be_taken_back() {
    let mut server = server();
    let first = server.realm.after(server.now, secs(2));
    let second = server.realm.after(server.now, secs(1));
    let never = server.realm.after(server.now, secs(1));
    assert!(server.realm.cancel(never) && !server.realm.cancel(never));
    server.advance(secs(1));
    assert_eq!(server.events, [], "never early");
    server.advance(secs(2));
    assert_eq!(server.events, [Event::Timer { key: second }, Event::Timer { key: first }]);
    assert!(!server.realm.cancel(first));
}

// -- messages ----------------------------------------------------------------------------------------------------------

/// A client with this `sys.gs`, after its acknowledgement; and what it was answered.
fn greeted(server: &mut Server, gs: &str) -> (LinkId, SessionKey, String) {
    let link = server.connect();
    let handshake = format!(r#"{{"sys":{{"gs":{gs}}}}}"#);
    let header = [1, 0, (handshake.len() >> 8) as u8, handshake.len() as u8];
    let answer = server.send(link, &[&header[..], handshake.as_bytes()].concat());
    server.send(link, &hex("02 00 00 00"));
    (link, server.realm.session_of(link).unwrap(), String::from_utf8(answer[4..].to_vec()).unwrap())
}

#[test]
fn a_broadcast_of_two_bodies_gives_each_client_its_own() {
    let mut server = server();
    assert!(!server.realm.speaks(Serializer::Protobuf));
    let (json_link, json, _) = greeted(&mut server, r#"{"serializer":"json"}"#);
    assert!(server.realm.speaks(Serializer::Json) && !server.realm.speaks(Serializer::Protobuf));
    let (proto_link, proto, _) = greeted(&mut server, r#"{"serializer":"protobuf"}"#);
    assert!(server.realm.speaks(Serializer::Json) && server.realm.speaks(Serializer::Protobuf));
    assert_eq!(server.realm.push_all(None, Class::Reliable, 0, "a", Bodies::new(b"", b"[]")), 2);
    let red = server.realm.group("red");
    server.realm.group_add(red, json);
    server.realm.group_add(red, proto);
    assert_eq!(server.realm.push_group(red, None, Class::Reliable, 0, "b", Bodies::new(b"p", b"[1]")), 2);
    server.settle();
    assert_eq!(spaced(&server.take(json_link)), "04 00 00 05 06 01 61 5b 5d 04 00 00 06 06 01 62 5b 31 5d");
    assert_eq!(spaced(&server.take(proto_link)), "04 00 00 03 06 01 61 04 00 00 04 06 01 62 70");
    for link in [json_link, proto_link] {
        end(&mut server, link, Close::Left);
    }
    server.story();
    assert!(!server.realm.speaks(Serializer::Json) && !server.realm.speaks(Serializer::Protobuf));
}

#[test]
fn a_client_that_asks_gets_the_schema_or_the_digest_of_what_it_has() {
    let mut server = server();
    let (_, _, none) = greeted(&mut server, r#"{"schema":""}"#);
    assert!(!none.contains("schema") && !none.contains("digest"), "{none}");
    let json = r#"{"digest":"d1","messages":{}}"#.to_owned();
    server.realm.set_schema(Some(SchemaDocument { digest: "d1".to_owned(), json: json.clone() }));
    for (gs, holds, lacks) in [
        (r#"{"schema":""}"#, format!(r#""schema":{json}"#), ""),
        (r#"{"schema":"d0"}"#, format!(r#""schema":{json}"#), ""),
        (r#"{"schema":"d1"}"#, r#""digest":"d1""#.to_owned(), "schema"),
        ("{}", String::new(), "d1"),
        (r#"{"schema":1}"#, String::new(), "d1"),
    ] {
        let (_, _, answer) = greeted(&mut server, gs);
        assert!(answer.contains(&holds), "{gs}: {answer}");
        assert!(lacks.is_empty() || !answer.contains(lacks), "{gs}: {answer}");
    }
}

#[test]
fn a_refused_notify_is_told_to_those_who_know_of_it() {
    let mut server = server();
    let metadata = [("route".to_owned(), "Move".to_owned())];
    let (link, session, _) = greeted(&mut server, "{}");
    server.realm.refuse_notify(session, link, "GS-400", "no", &metadata);
    let (old_link, old) = server.join();
    server.take(old_link);
    server.realm.refuse_notify(old, old_link, "GS-400", "no", &metadata);
    server.settle();
    let told = server.take(link);
    assert_eq!(told[4..][..8], *b"\x06\x06$error");
    assert_eq!(told[12..], *br#"{"code":"GS-400","msg":"no","metadata":{"route":"Move"}}"#);
    assert_eq!(server.take(old_link), b"");
}

#[test]
fn too_many_bad_messages_in_a_minute_close_the_link() {
    let mut setup = Setup::default();
    setup.realm.bad_messages_max = 3;
    let mut server = Server::new(&setup);
    let (link, session) = server.join();
    let bad =
        |server: &mut Server, count| (0..count).for_each(|_| server.realm.bad_message(server.now, session));
    bad(&mut server, 3);
    for _ in 0..2 {
        server.advance(secs(30));
        server.send(link, &hex("03 00 00 00"));
    }
    bad(&mut server, 3); // another minute
    server.settle();
    assert_eq!(
        (state(&server, session), server.realm.stats().closed(Close::BadMessages)),
        (Some(State::Active), 0)
    );
    bad(&mut server, 2); // the one too many, and one that came with it
    server.settle();
    assert_eq!(server.left(), [Left::Kicked]);
    assert_eq!(server.realm.stats().closed(Close::BadMessages), 1);
}
