//! The caps on connections, on the whole server: what is counted, and whose place is free again when.

mod common;

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use common::{Client, Game, on_both, request};
use net::address::Address;
use net::reactor::ReactorStats;
use wire::packet::PacketKind;

impl Game {
    /// Connections that were accepted, refused since all places were taken, and refused since their address had its share.
    fn counts(&mut self) -> (u64, u64, u64) {
        let all = self.server.socket_stats();
        let sum = |count: fn(&ReactorStats) -> u64| all.iter().map(count).sum();
        (sum(|stats| stats.accepted), sum(|stats| stats.refused_full), sum(|stats| stats.refused_address))
    }
}

#[test]
fn one_address_has_its_share_and_its_clients_play_on() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        for threads in [0, 2] {
            let mut game = Game::new(threads, |options, _| {
                options.addresses = vec![Address::Tcp(address.parse().unwrap())];
                options.connections_per_address_max = 3;
            });
            let mut clients: Vec<_> = (0..3).map(|_| game.connect()).collect();
            let mut refused: Vec<_> = (0..4).map(|_| Client::new(game.address)).collect();
            game.until(|game| {
                refused.iter_mut().all(Client::<TcpStream>::is_ended) && game.counts() == (3, 0, 4)
            });
            for client in &mut clients {
                client.send(&request(1, "echo", b"mine"));
                game.until(|_| client.packet(PacketKind::Data).is_some());
            }
            drop(clients.pop());
            game.until(|game| game.server.connections() == 2);
            clients.push(game.connect());
            assert_eq!(game.counts(), (4, 0, 4));
            game.end();
        }
    }
}

#[test]
fn the_server_has_its_places_whoever_asks_for_them() {
    on_both(|threads| {
        let mut game = Game::new(threads, |options, _| options.connections_max = 2);
        let _players = [game.connect(), game.connect()];
        let mut third = Client::new(game.address);
        game.until(|game| third.is_ended() && game.counts() == (2, 1, 0));
        assert_eq!(game.server.connections(), 2);
        game.end();
    });
}

#[test]
fn a_unix_socket_has_no_address_to_cap_but_places_all_the_same() {
    on_both(|threads| {
        let path = std::env::temp_dir().join(format!("server-caps-{threads}-{}", std::process::id()));
        let mut game = Game::new(threads, |options, _| {
            options.addresses = vec![Address::Unix(path.clone())];
            (options.connections_per_address_max, options.connections_max) = (1, 3);
        });
        let connect = || {
            let stream = UnixStream::connect(&path).unwrap();
            stream.set_nonblocking(true).unwrap();
            Client::over(stream)
        };
        let mut players: Vec<_> = (0..3).map(|_| game.join(connect())).collect();
        let mut fourth = connect();
        game.until(|game| fourth.is_ended() && game.counts() == (3, 1, 0));
        for player in &mut players {
            player.send(&request(1, "echo", b"mine"));
            game.until(|_| player.packet(PacketKind::Data).is_some());
        }
        game.end();
        assert!(!path.exists());
    });
}
