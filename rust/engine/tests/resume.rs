//! Sessions that go on over another connection: nothing lost, nothing twice, order kept, wherever the cut is; and who may.

mod common;

use common::returning::Returning;
use common::{Authenticate, Got, SECOND, Server, Setup, hex, secs, spaced};
use engine::event::{Class, Close, LinkId};
use engine::realm::{AcceptError, Left, SessionKey};
use engine::session::State;
use proptest::collection::vec;
use proptest::prelude::*;

fn graceful() -> Setup {
    let mut setup = Setup::default();
    setup.realm.resume_grace = secs(10);
    setup
}

/// A client that has joined.
fn joined(server: &mut Server) -> (Returning, SessionKey) {
    let mut client = Returning::default();
    client.connect(server);
    client.run(server);
    let session = session_of(server, &client);
    (client, session)
}

fn session_of(server: &Server, client: &Returning) -> SessionKey {
    server.realm.session_of(client.link.unwrap()).unwrap()
}

fn state(server: &Server, session: SessionKey) -> Option<State> {
    server.realm.session(session).map(|session| session.state())
}

fn end(server: &mut Server, link: LinkId, why: Close) {
    let now = server.now;
    let end = server.end(link);
    end.link.handle_end(now, why, &mut end.ups);
    server.settle();
}

fn push(server: &mut Server, session: SessionKey, body: &str) {
    server.realm.push(session, Class::Reliable, 0, "p", body.as_bytes()).unwrap();
}

/// What handlers got, as `id route body` or `route body`.
fn told(server: &Server) -> Vec<String> {
    let tell = |got: &Got| match got {
        Got::Request { id, body, .. } => format!("{id} {}", String::from_utf8_lossy(body)),
        Got::Notify { body, .. } => String::from_utf8_lossy(body).into_owned(),
    };
    server.got.iter().map(tell).collect()
}

// -- wherever it is cut ----------------------------------------------------------------------------------------------

/// What the two have to say to each other, one step at a time, and what each packet may be the last one before a cut.
struct Story {
    server: Server,
    client: Returning,
    session: Option<SessionKey>,
    packets: usize,
    /// Cut after so many packets of all, and after so many more of the way back.
    cuts: Vec<usize>,
}

impl Story {
    fn new(cuts: &[usize]) -> Self {
        let mut server = Server::new(&graceful());
        let mut client = Returning::default();
        client.connect(&mut server);
        Self { server, client, session: None, packets: 0, cuts: cuts.to_vec() }
    }

    /// Carries everything, packet by packet, and cuts where it is asked to.
    fn carry(&mut self) {
        loop {
            if self.client.outgoing() > 0 {
                self.client.send_one(&mut self.server);
            } else {
                self.client.collect(&mut self.server);
                if !self.client.receive_one() {
                    return;
                }
            }
            self.packets += 1;
            if self.cuts.first() == Some(&self.packets) {
                self.cuts.remove(0);
                self.packets = 0;
                let link = self.client.link.unwrap();
                self.client.cut();
                end(&mut self.server, link, Close::Reset);
                self.client.connect(&mut self.server);
            }
        }
    }

    fn play(mut self) -> Self {
        self.carry();
        let session = session_of(&self.server, &self.client);
        self.session = Some(session);
        for round in 0..3 {
            self.client.request("echo", &format!("e{round}"));
            self.client.request("hold", &format!("h{round}"));
            self.client.notify("note", &format!("n{round}"));
            push(&mut self.server, session, &format!("{round}"));
            self.server.realm.push_all(None, Class::Reliable, 0, "all", format!("{round}").as_bytes());
            self.carry();
            let link = self.client.link.unwrap();
            self.server.realm.respond(session, link, round * 2 + 2, b"held");
            self.client.say_seen();
            self.carry();
        }
        self
    }

    fn check(&self) {
        let expected: Vec<_> = (0..3)
            .flat_map(|round| {
                [
                    format!("{} e{round}", 2 * round + 1),
                    format!("{} h{round}", 2 * round + 2),
                    format!("n{round}"),
                ]
            })
            .collect();
        assert_eq!(told(&self.server), expected);
        let of =
            |mark: &str| self.client.got.iter().filter(|got| got.contains(mark)).cloned().collect::<Vec<_>>();
        assert_eq!(of("=e"), ["1=e0", "3=e1", "5=e2"]);
        assert_eq!(of("=held"), ["2=held", "4=held", "6=held"]);
        assert_eq!(
            (of("p:"), of("all:")),
            (
                ["p:0", "p:1", "p:2"].map(String::from).into(),
                ["all:0", "all:1", "all:2"].map(String::from).into()
            )
        );
        assert_eq!(self.client.got.len(), 12);
        assert_eq!(self.server.realm.sessions().count(), 1);
    }
}

#[test]
fn a_cut_after_each_packet_of_a_session_and_of_the_way_back_loses_nothing_and_repeats_nothing() {
    let plain = Story::new(&[]).play();
    plain.check();
    let total = plain.packets;
    assert!(total > 20);
    let mut resumed = 0;
    for first in 1..=total {
        let once = Story::new(&[first]).play();
        once.check();
        // The way back: handshake, answer, acknowledgement, heartbeat, what is sent again.
        for second in 1..=9 {
            let twice = Story::new(&[first, second]).play();
            twice.check();
            resumed += twice.client.resumed;
        }
    }
    assert!(resumed > total * 9);
}

#[test]
fn before_the_answer_has_come_there_is_nothing_to_go_on_with() {
    let story = Story::new(&[1]).play();
    story.check();
    assert_eq!((story.client.resumed, story.client.renewed), (0, 0));
    // The session of an answer that was lost is told to nobody, and gone when its time is over.
    let mut server = story.server;
    server.advance(secs(11));
    assert_eq!(server.story(), "knocked knocked joined gone");
}

#[derive(Clone, Debug)]
enum Op {
    Request,
    Hold,
    Notify,
    Push,
    PushAll,
    PushUnreliable,
    AnswerHeld,
    SaySeen,
    Send(usize),
    Receive(usize),
    Advance(u64),
    /// How the server hears of it, and whether what the client had sent still arrives: before, or behind the next handshake.
    Cut(Option<Close>, Arrival),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arrival {
    Lost,
    Before,
    Late,
}

fn op() -> impl Strategy<Value = Op> {
    let arrival = prop_oneof![Just(Arrival::Lost), Just(Arrival::Before), Just(Arrival::Late)];
    let noticed = prop_oneof![Just(None), Just(Some(Close::Reset)), Just(Some(Close::Left))];
    prop_oneof![
        4 => Just(Op::Request), 2 => Just(Op::Hold), 3 => Just(Op::Notify), 3 => Just(Op::Push), 2 => Just(Op::PushAll),
        1 => Just(Op::PushUnreliable), 2 => Just(Op::AnswerHeld), 1 => Just(Op::SaySeen),
        8 => (1usize..5).prop_map(Op::Send), 8 => (1usize..5).prop_map(Op::Receive), 1 => (0u64..20).prop_map(Op::Advance),
        3 => (noticed, arrival).prop_map(|(why, arrival)| Op::Cut(why, arrival)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_of_any_cuts_loses_nothing_and_repeats_nothing(ops in vec(op(), 1..120)) {
        let mut server = Server::new(&graceful());
        let (mut client, session) = joined(&mut server);
        let (mut number, mut late) = (0, None);
        let (mut sent, mut pushed, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut held, mut answered, mut asked) = (0, Vec::new(), 0);
        let first_link = client.link.unwrap();
        for op in ops {
            number += 1;
            match op {
                Op::Request | Op::Hold => {
                    asked += 1;
                    let route = if matches!(op, Op::Hold) { "hold" } else { "echo" };
                    if route == "echo" {
                        echoes.push(format!("{asked}={route}{number}"));
                    }
                    client.request(route, &format!("{route}{number}"));
                    sent.push(format!("{asked} {route}{number}"));
                }
                Op::Notify => {
                    client.notify("note", &number.to_string());
                    sent.push(number.to_string());
                }
                Op::Push => {
                    push(&mut server, session, &number.to_string());
                    pushed.push(format!("p:{number}"));
                }
                Op::PushAll => {
                    server.realm.push_all(None, Class::Reliable, 0, "p", number.to_string().as_bytes());
                    pushed.push(format!("p:{number}"));
                }
                Op::PushUnreliable => {
                    let _ = server.realm.push(session, Class::Latest, 0, "u", b"u");
                    server.realm.push_all(None, Class::Droppable, 0, "u", &b"u"[..]);
                }
                Op::AnswerHeld => {
                    // Of those that have come: the next one, to the link by which it may have come.
                    let holds: Vec<_> = server.got.iter().filter_map(|got| match got {
                        Got::Request { id, route, .. } if route == "hold" => Some(*id),
                        _ => None,
                    }).collect();
                    if let Some(&id) = holds.get(held) {
                        held += 1;
                        answered.push(format!("{id}=late"));
                        server.realm.respond(session, first_link, id, b"late");
                    }
                }
                Op::SaySeen => client.say_seen(),
                Op::Send(count) => (0..count).for_each(|_| client.send_one(&mut server)),
                Op::Receive(count) => {
                    client.collect(&mut server);
                    (0..count).for_each(|_| { client.receive_one(); });
                }
                Op::Advance(seconds) => server.advance(seconds * SECOND / 4),
                Op::Cut(why, arrival) => {
                    let link = client.link.unwrap();
                    let mut rest = Returning::default();
                    std::mem::swap(&mut rest, &mut client);
                    if arrival == Arrival::Before {
                        while rest.outgoing() > 0 { rest.send_one(&mut server); }
                    }
                    let bytes = if arrival == Arrival::Late { rest.waiting() } else { Vec::new() };
                    client = rest;
                    client.cut();
                    match why {
                        Some(Close::Left) => {
                            let now = server.now;
                            let end = server.end(link);
                            end.link.handle_eof(now, &mut end.ups);
                            server.settle();
                        }
                        Some(why) => end(&mut server, link, why),
                        None => {}
                    }
                    client.connect(&mut server);
                    client.send_one(&mut server);
                    late = Some((link, bytes));
                }
            }
            if let Some((link, bytes)) = late.take() {
                server.send(link, &bytes);
            }
            server.settle();
            if server.closed(client.link.unwrap()).is_some() {
                client.cut(); // it took too long to acknowledge
                client.connect(&mut server);
            }
        }
        client.run(&mut server);
        prop_assert_eq!(client.renewed, 0);
        prop_assert_eq!(told(&server), sent);
        let of = |mark: &str| client.got.iter().filter(|got| got.contains(mark)).cloned().collect::<Vec<_>>();
        prop_assert_eq!(of("p:"), pushed);
        prop_assert_eq!(of("=echo"), echoes);
        prop_assert_eq!(of("=late"), answered);
        prop_assert!(server.left().is_empty());
        let story = server.story().replace("knocked joined", "");
        prop_assert_eq!(story.matches("dropped").count(), story.matches("resumed").count());
        // All was seen, and nothing is kept.
        client.say_seen();
        client.run(&mut server);
        let link = client.link.unwrap();
        client.cut();
        end(&mut server, link, Close::Reset);
        let before = client.got.len();
        client.connect(&mut server);
        client.run(&mut server);
        prop_assert_eq!(client.got.len(), before);
        server.advance(secs(100));
    }
}

// -- who may ---------------------------------------------------------------------------------------------------------

/// As `client`, with what it had at this time.
fn copy(client: &Returning) -> Returning {
    Returning {
        token: client.token.clone(),
        seen: client.seen,
        session: client.session,
        ..Returning::default()
    }
}

#[test]
fn an_old_socket_that_is_still_open_is_closed_and_what_it_still_says_is_nobodys() {
    let mut server = Server::new(&graceful());
    let (mut client, session) = joined(&mut server);
    let old = client.link.unwrap();
    client.cut();
    client.connect(&mut server);
    client.run(&mut server);
    assert_eq!((server.closed(old), client.resumed), (Some(Close::Replaced), 1));
    server.send(old, &hex("04 00 00 06 02 04 6e 6f 74 65"));
    assert_eq!(server.got, []);
    assert_eq!(server.story(), "knocked joined dropped resumed");
    assert_eq!(state(&server, session), Some(State::Active));
    assert_eq!((server.realm.stats().resumed, server.realm.stats().resume_refused), (1, 0));
}

#[test]
fn of_two_sockets_at_once_the_later_one_has_it_and_the_first_ones_acknowledgement_counts_for_nothing() {
    let mut server = Server::new(&graceful());
    let (mut first, session) = joined(&mut server);
    let mut second = copy(&first);
    first.cut();
    first.connect(&mut server);
    first.send_one(&mut server);
    first.collect(&mut server);
    first.receive_one();
    second.connect(&mut server);
    second.send_one(&mut server);
    first.send_one(&mut server); // its acknowledgement
    second.run(&mut server);
    assert_eq!((second.resumed, second.renewed), (1, 0));
    assert_eq!(session_of(&server, &second), session);
    assert_eq!(server.closed(first.link.unwrap()), Some(Close::Replaced));
    // What the first was given is good no more.
    first.cut();
    first.connect(&mut server);
    first.run(&mut server);
    assert_eq!((first.renewed, server.realm.stats().resume_refused), (1, 1));
    assert_eq!(state(&server, session), Some(State::Active));
}

#[test]
fn a_token_that_was_used_before_gives_a_new_session_and_harms_nobody() {
    let mut server = Server::new(&graceful());
    let (mut client, session) = joined(&mut server);
    let mut thief = copy(&client);
    client.cut();
    client.connect(&mut server);
    client.run(&mut server);
    thief.connect(&mut server);
    thief.run(&mut server);
    assert_eq!((thief.resumed, thief.renewed), (0, 1));
    assert_ne!(session_of(&server, &thief), session);
    assert_eq!(state(&server, session), Some(State::Active));
    // Nor does one of another session's, or one that is made up.
    for forged in ["AAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAA", "", "\u{1f600}"] {
        let mut thief =
            Returning { token: Some(forged.to_owned()), session: Some(1), ..Returning::default() };
        thief.connect(&mut server);
        thief.run(&mut server);
        assert_eq!((thief.resumed, thief.renewed), (0, 1), "{forged}");
    }
}

#[test]
fn a_stolen_token_is_worth_the_session_until_its_owner_logs_in_again() {
    let mut server = Server::new(&graceful());
    server.authenticate = Authenticate::Uid("ann".to_owned());
    let (mut owner, session) = joined(&mut server);
    let mut thief = copy(&owner);
    thief.connect(&mut server);
    thief.run(&mut server);
    assert_eq!((thief.resumed, session_of(&server, &thief)), (1, session), "it is a secret: TLS keeps it");
    // The owner's token is used up: it logs in, which ends what was stolen.
    owner.cut();
    owner.connect(&mut server);
    owner.run(&mut server);
    assert_eq!((owner.renewed, server.left()), (1, vec![Left::Replaced]));
    assert_eq!(server.closed(thief.link.unwrap()), Some(Close::Replaced));
    thief.cut();
    server.authenticate = Authenticate::Guest;
    thief.connect(&mut server);
    thief.run(&mut server);
    assert_eq!(thief.renewed, 1);
    assert_eq!(server.realm.user("ann"), Some(session_of(&server, &owner)));
}

#[test]
fn the_same_uid_from_another_device_replaces_the_session_and_a_late_close_unbinds_nobody() {
    for is_cut in [false, true] {
        let mut server = Server::new(&graceful());
        server.authenticate = Authenticate::Uid("ann".to_owned());
        let (mut phone, _) = joined(&mut server);
        let old = phone.link.unwrap();
        if is_cut {
            end(&mut server, old, Close::Reset);
        }
        let (tablet, session) = joined(&mut server);
        assert_eq!((server.left(), server.realm.user("ann")), (vec![Left::Replaced], Some(session)));
        end(&mut server, old, Close::Reset);
        assert_eq!(server.realm.user("ann"), Some(session));
        // Its token went with it: the phone has to log in, and then it is the tablet that is replaced.
        phone.cut();
        phone.connect(&mut server);
        phone.run(&mut server);
        assert_eq!((phone.resumed, phone.renewed), (0, 1));
        assert_eq!(server.closed(tablet.link.unwrap()), Some(Close::Replaced));
    }
}

#[test]
fn who_is_not_to_be_replaced_is_once_his_client_is_gone() {
    let mut setup = graceful();
    setup.realm.replace = false;
    let mut server = Server::new(&setup);
    server.authenticate = Authenticate::Uid("ann".to_owned());
    let (client, _) = joined(&mut server);
    server.authenticate = Authenticate::Wait;
    let knock = |server: &mut Server| {
        let link = server.connect();
        server.send(link, &common::HANDSHAKE.concat());
        let session = server.realm.session_of(link).unwrap();
        server.realm.accept(session, Some("ann"))
    };
    assert_eq!(knock(&mut server), Err(AcceptError::UidTaken));
    end(&mut server, client.link.unwrap(), Close::Reset);
    assert_eq!(knock(&mut server), Ok(()));
    server.settle();
    assert_eq!(server.left(), [Left::Replaced]);
}

#[test]
fn after_logout_or_a_kick_or_the_grace_a_token_is_worth_nothing() {
    type Ends = fn(&mut Server, LinkId, SessionKey);
    let ends: [(Ends, Left); 5] = [
        (|server, link, _| _ = server.send(link, &hex("04 00 00 08 02 06 24 6c 65 61 76 65")), Left::Left),
        (|server, _, session| server.realm.kick(session, "go"), Left::Kicked),
        (|server, _, session| server.realm.close(session), Left::Kicked),
        (
            |server, link, _| {
                end(server, link, Close::Silent);
                server.advance(secs(10) + SECOND / 100);
            },
            Left::Lost,
        ),
        (|server, link, _| _ = server.send(link, &hex("09 00 00 00")), Left::Kicked),
    ];
    for (ends, left) in ends {
        let mut server = Server::new(&graceful());
        let (mut client, session) = joined(&mut server);
        ends(&mut server, client.link.unwrap(), session);
        server.settle();
        assert_eq!(server.left(), [left]);
        client.cut();
        client.connect(&mut server);
        client.run(&mut server);
        assert_eq!((client.resumed, client.renewed), (0, 1), "{left:?}");
    }
}

#[test]
fn a_client_that_does_not_ask_or_a_server_without_a_grace_has_none_of_it() {
    let mut server = Server::new(&graceful());
    let (link, _) = server.join();
    end(&mut server, link, Close::Reset);
    assert_eq!(server.story(), "knocked joined dropped left", "nobody could come back");
    let mut server = Server::new(&Setup::default());
    let link = server.connect();
    let hello = br#"{"sys":{"gs":{"resume":{"token":"AAAAAAAAAAAAAAAAAAAAAAAAAAA","seen":0}}}}"#;
    let answer = server.send(link, &[&[1, 0, 0, hello.len() as u8][..], hello].concat());
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("\"gs\"") && !answer.contains("resume"), "{answer}");
}

/// The vectors of docs/wire.md.
#[test]
fn what_is_said_of_it_on_the_wire() {
    let mut server = Server::new(&graceful());
    let (link, session) = server.join_with(br#"{"sys":{"gs":{"resume":{}}}}"#);
    for _ in 0..5 {
        push(&mut server, session, "");
        server.send(link, &hex("04 00 00 06 02 04 6e 6f 74 65"));
    }
    let told = server.send(link, &hex("04 00 00 08 02 05 24 73 65 65 6e 35"));
    assert_eq!((spaced(&told).as_str(), server.closed(link)), ("", None));
    server.advance(secs(15));
    assert_eq!(spaced(&server.take(link)), "03 00 00 00 04 00 00 08 06 05 24 73 65 65 6e 35");
    let dropped = "04 00 00 0b 06 07 24 7e 6d 6f 76 65 64 7b 7d";
    server.realm.push(session, Class::Latest, 0, "moved", b"{}").unwrap();
    server.settle();
    assert_eq!(spaced(&server.take(link)), dropped);
    // Others in the same broadcast know nothing of it.
    let (plain, _) = server.join();
    server.realm.push_all(None, Class::Droppable, 0, "moved", &b"{}"[..]);
    server.settle();
    assert_eq!(spaced(&server.take(link)), dropped);
    assert_eq!(spaced(&server.take(plain)), "04 00 00 09 06 05 6d 6f 76 65 64 7b 7d");
}

// -- bounds ----------------------------------------------------------------------------------------------------------

#[test]
fn beyond_the_bound_it_is_refused_and_never_guessed() {
    let mut setup = graceful();
    setup.realm.resume_bytes_max = 100;
    let mut server = Server::new(&setup);
    let (mut client, session) = joined(&mut server);
    end(&mut server, client.link.unwrap(), Close::Reset);
    for number in 0..10 {
        push(&mut server, session, &number.to_string());
    }
    client.cut();
    client.connect(&mut server);
    client.run(&mut server);
    assert_eq!((client.resumed, client.renewed, client.got.len()), (0, 1, 0));
    assert_eq!((server.left(), state(&server, session)), (vec![Left::Lost], None));
    assert_eq!(server.story(), "knocked joined dropped left knocked joined");
}

#[test]
fn who_has_seen_what_was_never_sent_can_not_go_on() {
    let mut server = Server::new(&graceful());
    let (mut client, _) = joined(&mut server);
    client.seen = 1;
    client.cut();
    client.connect(&mut server);
    client.run(&mut server);
    assert_eq!((client.renewed, server.left()), (1, vec![Left::Lost]));
    client.seen = 7;
    client.say_seen();
    client.run(&mut server);
    assert_eq!(server.closed(client.link.unwrap()), Some(Close::MessageInvalid));
    for body in ["", "x", "-1", "18446744073709551616"] {
        let (link, _) = server.join();
        let mut message = hex("04 00 00 00 02 05 24 73 65 65 6e");
        message.extend_from_slice(body.as_bytes());
        message[3] = message.len() as u8 - 4;
        server.send(link, &message);
        assert_eq!(server.closed(link), Some(Close::MessageInvalid), "{body}");
    }
}

#[test]
fn each_side_is_told_in_time_what_it_need_not_keep() {
    let mut server = Server::new(&graceful());
    let (mut client, _) = joined(&mut server);
    for number in 0..64 {
        client.notify("note", &number.to_string());
    }
    client.run(&mut server);
    assert_eq!((client.unseen.sent(), client.unseen.charge()), (64, 0));
    client.notify("note", &"x".repeat(16 * 1024));
    client.run(&mut server);
    assert_eq!(client.unseen.charge(), 0);
    // Few and short: with the next heartbeat.
    client.notify("note", "a");
    client.run(&mut server);
    assert!(client.unseen.charge() > 0);
    server.advance(secs(15));
    client.run(&mut server);
    assert_eq!((client.unseen.sent(), client.unseen.charge()), (66, 0));
}

#[test]
fn so_many_wait_at_a_time_and_no_more() {
    let mut setup = graceful();
    setup.realm.resume_waiting_max = 2;
    let mut server = Server::new(&setup);
    let clients: Vec<_> = (0..4).map(|_| joined(&mut server).0).collect();
    for client in &clients[..3] {
        end(&mut server, client.link.unwrap(), Close::Reset);
    }
    assert_eq!(server.left(), [Left::Lost]);
    let mut first = copy(&clients[0]);
    first.connect(&mut server);
    first.run(&mut server);
    assert_eq!(first.resumed, 1);
    end(&mut server, clients[3].link.unwrap(), Close::Reset);
    assert_eq!(server.left(), [Left::Lost], "there is a place again");
    server.advance(secs(11));
    assert_eq!(server.left().len(), 3);
    let [a, b] = [joined(&mut server).0, joined(&mut server).0];
    for client in [a, b] {
        end(&mut server, client.link.unwrap(), Close::Reset);
    }
    assert_eq!(server.left().len(), 3, "both places are free again");
}

#[test]
fn a_client_that_is_too_slow_comes_back_and_gets_the_rest() {
    let mut setup = graceful();
    setup.realm.queue_bytes_max = 200;
    let mut server = Server::new(&setup);
    let (mut client, session) = joined(&mut server);
    let old = client.link.unwrap();
    let push_some = |server: &mut Server, numbers: std::ops::Range<u32>| {
        numbers.for_each(|number| push(server, session, &number.to_string()));
        server.settle();
    };
    push_some(&mut server, 0..2);
    client.run(&mut server);
    client.say_seen();
    client.run(&mut server);
    push_some(&mut server, 2..12);
    assert_eq!((server.closed(old), server.left()), (Some(Close::Slow), vec![]));
    client.cut();
    client.connect(&mut server);
    client.run(&mut server);
    let expected: Vec<_> = (0..12).map(|number| format!("p:{number}")).collect();
    assert_eq!(client.got, expected);
}

#[test]
fn a_pause_outlasts_the_connection() {
    let mut server = Server::new(&graceful());
    let (mut client, session) = joined(&mut server);
    server.realm.pause(session);
    server.settle();
    client.cut();
    client.connect(&mut server);
    for number in 0..3 {
        client.notify("note", &number.to_string());
    }
    client.run(&mut server);
    assert_eq!((client.resumed, told(&server).len()), (1, 0));
    server.realm.resume(session);
    server.settle();
    assert_eq!(told(&server), ["0", "1", "2"]);
    client.cut();
    client.connect(&mut server);
    client.notify("note", "3");
    client.run(&mut server);
    assert_eq!(told(&server).len(), 4, "it is over");
}
