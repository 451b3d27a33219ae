//! Both logs as bytes: for a file, a replay, another machine.
//!
//! ```text
//! u32 events, u32 bytes, then the events, then the bytes; all numbers little-endian
//! event: its number in the list below as u8, then its fields in order
//! ```
//! Reading trusts nothing: an event that speaks of bytes that are not there is refused, and memory is reserved for
//! what has arrived only.

use crate::event::{Class, Close, Down, LinkId, Log, RouteId, Span, Transport, Up};

/// Why bytes are no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// They end too early.
    #[error("the log is cut off")]
    Cut,
    /// There are more of them than the log says.
    #[error("{0} bytes behind the log's end")]
    Trailing(usize),
    /// An event or a value of a field that does not exist.
    #[error("{what} {value} does not exist")]
    Unknown {
        /// What was read.
        what: &'static str,
        /// The byte.
        value: u8,
    },
    /// An event speaks of bytes that the log does not have.
    #[error("an event speaks of bytes {start} to {start} + {len} of {stored}")]
    Span {
        /// Where its bytes would start.
        start: u32,
        /// How many it wants.
        len: u32,
        /// How many there are.
        stored: usize,
    },
}

impl<E: Event> Log<E> {
    /// Appends the log as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.events.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.stored() as u32).to_le_bytes());
        for event in &self.events {
            event.write(out);
        }
        out.extend_from_slice(self.all_bytes());
    }

    /// The log that `input` is, all of it.
    pub fn decode(input: &[u8]) -> Result<Self, LogError> {
        let mut input = Input { rest: input, stored: 0 };
        let count = u32::read(&mut input)?;
        input.stored = u32::read(&mut input)? as usize;
        let stored = input.stored;
        let mut log = Self::default();
        for _ in 0..count {
            log.events.push(E::read(&mut input)?);
        }
        let bytes = input.take(stored)?;
        if !input.rest.is_empty() {
            return Err(LogError::Trailing(input.rest.len()));
        }
        log.store(bytes);
        Ok(log)
    }
}

/// What a log can hold.
pub trait Event: Field {}
impl Event for Up {}
impl Event for Down {}

/// What an event is made of.
pub trait Field: Sized {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);
    /// Takes it off the input.
    fn read(input: &mut Input<'_>) -> Result<Self, LogError>;
}

/// What is left to read.
pub struct Input<'a> {
    rest: &'a [u8],
    stored: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], LogError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(LogError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }
}

macro_rules! events {
    ($event:ident { $($tag:literal $variant:ident { $($field:ident),* })* }) => {
        impl Field for $event {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $($event::$variant { $($field),* } => {
                        out.push($tag);
                        $($field.write(out);)*
                    })*
                }
            }

            fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
                match u8::read(input)? {
                    $($tag => Ok($event::$variant { $($field: Field::read(input)?),* }),)*
                    value => Err(LogError::Unknown { what: stringify!($event), value }),
                }
            }
        }
    };
}

events!(Up {
    0 Opened { link, transport, tls, address }
    1 Handshake { link, body }
    2 Ready { link }
    3 Messages { link, route, room, packets, count }
    4 Relieved { link }
    5 UnknownRoute { link, request, route }
    6 Silent { link }
    7 Heard { link }
    8 Meter { link, bytes_in, bytes_out, rtt_us, quiet }
    9 Sent { link, bytes }
    10 Closed { link, why }
    11 HttpBytes { link, body }
    12 HttpEnded { link }
    13 HttpDrained { link }
    14 Ignored { link }
    15 Response { link, id, error, body }
    16 Push { link, route, body }
    17 Kicked { link, body }
    18 Seen { link, count }
    19 Leaves { link }
    20 Seeded { seed }
    21 SnapshotLeft { link, number }
    22 Dropped { link, route, tell, count }
    23 Limited { link, id, route }
    24 Congested { link }
});

events!(Down {
    0 Accept { link, body, codes, counts }
    1 Refuse { link, why, body }
    2 Answers { link, packets, count }
    3 Push { link, class, key, route, body }
    4 Broadcast { targets, class, key, route, body }
    5 Kick { link, why, body }
    6 Close { link, why }
    7 Pause { link }
    8 Resume { link }
    9 HttpBytes { link, body }
    10 Abort { link, why }
    11 Request { link, id, route, body }
    12 Notify { link, route, body }
    13 Again { link, packets, count }
    14 Snapshot { link, number, room, route, parts }
});

macro_rules! numbers {
    ($($number:ident)*) => {
        $(impl Field for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
                let bytes = input.take(size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().expect("as many as asked for")))
            }
        })*
    };
}

numbers!(u8 u16 u32 u64);

/// Fields that have one of a few values.
macro_rules! choices {
    ($($choice:ident: $values:expr;)*) => {
        $(impl Field for $choice {
            fn write(&self, out: &mut Vec<u8>) {
                let place = $values.iter().position(|value| value == self).expect("the list is complete");
                out.push(place as u8);
            }

            fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
                let value = u8::read(input)?;
                let known = $values.get(usize::from(value)).copied();
                known.ok_or(LogError::Unknown { what: stringify!($choice), value })
            }
        })*
    };
}

choices! {
    bool: [false, true];
    Transport: [Transport::Tcp, Transport::WebSocket, Transport::Http];
    Class: [Class::Reliable, Class::Latest, Class::Droppable];
    Close: Close::ALL;
}

impl Field for LinkId {
    fn write(&self, out: &mut Vec<u8>) {
        self.to_bits().write(out);
    }

    fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
        Ok(Self::from_bits(u64::read(input)?))
    }
}

impl Field for RouteId {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }

    fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
        Ok(Self(u32::read(input)?))
    }
}

impl<F: Field> Field for Option<F> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
        bool::read(input)?.then(|| F::read(input)).transpose()
    }
}

impl Field for Span {
    fn write(&self, out: &mut Vec<u8>) {
        self.start.write(out);
        self.len.write(out);
    }

    fn read(input: &mut Input<'_>) -> Result<Self, LogError> {
        let span = Self { start: u32::read(input)?, len: u32::read(input)? };
        if u64::from(span.start) + u64::from(span.len) > input.stored as u64 {
            return Err(LogError::Span { start: span.start, len: span.len, stored: input.stored });
        }
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{DownLog, UpLog};

    const UPS: u8 = 25;
    const DOWNS: u8 = 15;

    /// Any event at all: a variant's number and enough bytes for its fields, with choices and spans that exist.
    fn event<E: Event>(tag: u8, noise: &[u8], stored: usize) -> E {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(noise);
        // Wrong choices and spans become right ones, byte by byte, until it can be read.
        loop {
            match E::read(&mut Input { rest: &bytes, stored }) {
                Ok(event) => return event,
                Err(_) => match bytes[1..].iter_mut().find(|byte| **byte != 0) {
                    Some(byte) => *byte = 0,
                    None => panic!("event {tag} can't be read from zeros"),
                },
            }
        }
    }

    fn log<E: Event>(events: &[(u8, Vec<u8>)], bytes: &[u8]) -> Log<E> {
        let mut log = Log::<E>::default();
        log.store(bytes);
        for (tag, noise) in events {
            log.push(event(*tag, noise, bytes.len()));
        }
        log
    }

    fn events(variants: u8) -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
        let noise = prop_oneof![vec(any::<u8>(), 48), vec(0u8..4, 48)];
        vec((0..variants, noise), 0..20)
    }

    proptest! {
        #[test]
        fn logs_go_through_bytes(ups in events(UPS), downs in events(DOWNS), bytes in vec(any::<u8>(), 0..600)) {
            let (ups, downs): (UpLog, DownLog) = (log(&ups, &bytes), log(&downs, &bytes));
            let mut out = Vec::new();
            ups.encode(&mut out);
            prop_assert_eq!(UpLog::decode(&out), Ok(ups));
            out.clear();
            downs.encode(&mut out);
            prop_assert_eq!(DownLog::decode(&out), Ok(downs));
            for end in 0..out.len() {
                prop_assert!(DownLog::decode(&out[..end]).is_err());
            }
            out.push(0);
            prop_assert_eq!(DownLog::decode(&out), Err(LogError::Trailing(1)));
        }

        #[test]
        fn hostile_bytes_are_a_log_whose_bytes_exist_or_an_error(mut bytes in vec(any::<u8>(), 0..400), small: bool, count in 0u8..10, stored in 0u8..60) {
            if small && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&[count, 0, 0, 0, stored, 0, 0, 0]);
            }
            if let Ok(log) = UpLog::decode(&bytes) {
                for up in &log.events {
                    if let Up::Opened { address: span, .. } | Up::Handshake { body: span, .. } | Up::Messages { packets: span, .. } | Up::HttpBytes { body: span, .. } = up {
                        log.bytes(*span);
                    }
                }
            }
            if let Ok(log) = DownLog::decode(&bytes) {
                for down in &log.events {
                    if let Down::Push { route, body, .. } | Down::Broadcast { targets: route, body, .. } = down {
                        log.bytes(*route);
                        log.bytes(*body);
                    }
                    if let Down::Snapshot { parts, .. } = down {
                        prop_assert!(log.parts(*parts).count() <= parts.len as usize / 8);
                    }
                }
            }
        }
    }

    #[test]
    fn every_event_has_a_number_of_its_own() {
        for tag in 0..UPS {
            let mut out = Vec::new();
            event::<Up>(tag, &[0; 48], 0).write(&mut out);
            assert_eq!(out[0], tag);
        }
        for tag in 0..DOWNS {
            let mut out = Vec::new();
            event::<Down>(tag, &[0; 48], 0).write(&mut out);
            assert_eq!(out[0], tag);
        }
        let zeros = [0; 64];
        for (tag, read) in [(UPS, false), (DOWNS, true)] {
            let mut bytes = vec![tag];
            bytes.extend_from_slice(&zeros);
            let input = &mut Input { rest: &bytes, stored: 0 };
            let error = if read { Down::read(input).err() } else { Up::read(input).err() };
            assert!(
                matches!(error, Some(LogError::Unknown { value, .. }) if value == tag),
                "the lists here are stale"
            );
        }
    }

    #[test]
    fn every_reason_to_close_is_in_the_list_once() {
        let mut names: Vec<_> = Close::ALL.iter().map(|why| why.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Close::ALL.len());
        for (place, why) in Close::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
    }
}
