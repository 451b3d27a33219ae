//! Every protocol, one byte at a time: before the server can tell what it is, and to the last.

mod common;

use common::tls::{Certificate, TlsStream};
use common::{CONVERSATIONS, Client, Game, on_both};

#[test]
fn every_protocol_may_come_byte_by_byte() {
    on_both(|threads| {
        let mut game = Game::new(threads, |_, _| {});
        for (protocol, ask, answer) in CONVERSATIONS {
            let mut client = Client::new(game.address);
            for byte in ask() {
                client.receive();
                assert!(!client.ended && !answer(&client.received), "{protocol}: before all was sent");
                client.send(&[byte]);
                game.turn();
            }
            game.until(|_| {
                client.receive();
                answer(&client.received)
            });
        }
        game.end();
    });
}

#[test]
fn and_so_may_tls_with_every_protocol_inside() {
    on_both(|threads| {
        let certificate = Certificate::new(&format!("drip-{threads}"));
        let mut game = Game::new(threads, |options, _| certificate.give(options));
        for (_, ask, answer) in CONVERSATIONS {
            let mut client = Client::over(TlsStream::new(game.address, &certificate));
            client.stream.drips = true;
            client.send(&ask());
            game.until(|_| {
                client.stream.drip();
                client.receive();
                answer(&client.received)
            });
            assert!(client.stream.outgoing.is_empty());
        }
        game.end();
    });
}
