//! The reference with sockets: simulate, grid, encode, one send per client and tick. `bare_server LOAD TICKS [CLIENTS]`: says its port, waits for all
//! clients' handshakes, runs, and says CPU nanoseconds per tick and bytes sent. benches/world.py runs it.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::bare::Bare;
use common::motion::{LOADS, Load, RATE};

const ANSWER: &str = r#"{"code":200,"sys":{"heartbeat":60,"gs":{}}}"#;
const WARMUP: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo bench` runs it, too: without a load there is nothing to do.
    let Some(mut load) =
        LOADS.into_iter().find(|load| arguments.get(1).is_some_and(|name| name == load.name))
    else {
        return;
    };
    let number = |place: usize| arguments.get(place).and_then(|number| number.parse().ok());
    let ticks = number(2).unwrap_or(100);
    load.clients = number(3).unwrap_or(load.clients);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("bound").port());
    let mut clients: Vec<TcpStream> = (0..load.clients).map(|_| welcome(&listener)).collect();
    let (nanos, sent) = run(load, ticks, &mut clients);
    println!("{{\"cpu_ns\":{},\"bytes\":{sent},\"ticks\":{ticks}}}", nanos / ticks as u128);
}

fn welcome(listener: &TcpListener) -> TcpStream {
    let (mut client, _) = listener.accept().expect("a client");
    client.set_nodelay(true).expect("a socket");
    let mut head = [0; 4];
    client.read_exact(&mut head).expect("a handshake");
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    client.read_exact(&mut body).expect("a handshake");
    let answer = [&[1, 0, 0, ANSWER.len() as u8], ANSWER.as_bytes()].concat();
    client.write_all(&answer).expect("a client");
    client
}

fn run(load: Load, ticks: usize, clients: &mut [TcpStream]) -> (u128, usize) {
    let mut bare = Bare::new(load);
    let (mut packet, mut sent, mut began) = (Vec::new(), 0, 0);
    let start = Instant::now();
    for tick in 0..WARMUP + ticks {
        if tick == WARMUP {
            began = cpu_nanos();
            sent = 0;
        }
        let due = Duration::from_secs_f32(tick as f32 / RATE);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        bare.simulate(tick);
        bare.encode();
        for (number, client) in clients.iter_mut().enumerate() {
            let body = bare.snapshot(tick, number);
            if body.is_empty() {
                continue;
            }
            packet.clear();
            let len = (4 + body.len()) as u16;
            packet.extend([4, 0, (len >> 8) as u8, len as u8, 6, 2, b'$', b'w']);
            packet.extend_from_slice(body);
            client.write_all(&packet).expect("a client that reads");
            sent += packet.len();
        }
    }
    (cpu_nanos() - began, sent)
}

/// Of this process, as the kernel counts it.
fn cpu_nanos() -> u128 {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).expect("a number")
}
