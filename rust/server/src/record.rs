//! A recording: all that enters the logic thread, turn by turn, and what it answered.
//!
//! The file is a row of parts, each `kind u8, length u32 LE, bytes`, in the order in which they happened:
//!
//! ```text
//! T       a turn's time (u64 LE ns); its logs follow
//! U       a log from the links
//! D       a log toward reactor n (first byte n)
//! R       the turn returned to asyncio, whose tasks stepped then
//! W       nanoseconds between our clock and 1970
//! S B P X the times of on_start, the first tick, on_stop and the end
//! N       what the run was started with; the first part
//! A       where it listened, one address a line
//! E       the last client was gone, and who waited for that was told
//! F       an I/O thread had ended: why
//! O       the run had ended; missing if it was killed
//! C J Q   what the face notes: a call from outside, a job's result, a stop by such a call
//! ```
//! A replay feeds the same times and logs, returns to asyncio where the run did, and compares every `D`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use engine::event::{DownLog, Nanos, UpLog};

/// The turn returned to asyncio.
pub const RETURNED: u8 = b'R';
/// What the run was started with.
pub const STARTED_WITH: u8 = b'N';
/// Where it listened.
pub const ADDRESSES: u8 = b'A';
/// Who waited for the last client to go was told.
pub const DESERTED: u8 = b'E';
/// Why an I/O thread had ended.
pub const FAILURE: u8 = b'F';
/// The run had ended.
pub const ENDED: u8 = b'O';
/// Nanoseconds between our clock and 1970.
pub const WALL: u8 = b'W';

/// The kinds of parts that say what they like.
const NOTES: &[u8] = &[RETURNED, STARTED_WITH, ADDRESSES, DESERTED, FAILURE, ENDED, b'C', b'J', b'Q'];

/// Writes a recording.
pub struct Recorder {
    out: BufWriter<File>,
    scratch: Vec<u8>,
    failed: bool,
}

impl Recorder {
    /// Creates or overwrites the file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { out: BufWriter::new(File::create(path)?), scratch: Vec::new(), failed: false })
    }

    /// A turn begins.
    pub fn turn(&mut self, now: Nanos, logs: &[UpLog]) {
        self.part(b'T', &now.to_le_bytes());
        for log in logs {
            self.scratch.clear();
            log.encode(&mut self.scratch);
            let scratch = std::mem::take(&mut self.scratch);
            self.part(b'U', &scratch);
            self.scratch = scratch;
        }
    }

    /// What the realm asked of reactor `number`.
    pub fn sent(&mut self, number: u8, downs: &DownLog) {
        self.scratch.clear();
        self.scratch.push(number);
        downs.encode(&mut self.scratch);
        let scratch = std::mem::take(&mut self.scratch);
        self.part(b'D', &scratch);
        self.scratch = scratch;
    }

    /// A time outside of a turn.
    pub fn mark(&mut self, kind: u8, now: Nanos) {
        self.part(kind, &now.to_le_bytes());
    }

    /// Anything else; `kind` is none of those whose parts have a form.
    pub fn note(&mut self, kind: u8, bytes: &[u8]) {
        self.part(kind, bytes);
    }

    fn part(&mut self, kind: u8, bytes: &[u8]) {
        let result = self
            .out
            .write_all(&[kind])
            .and_then(|()| self.out.write_all(&(bytes.len() as u32).to_le_bytes()))
            .and_then(|()| self.out.write_all(bytes));
        if let Err(error) = result
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::error!(%error, "the recording can't be written and is incomplete from here on");
        }
    }
}

/// One part of a recording.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// A turn at this time.
    Turn(Nanos),
    /// What came in it.
    Up(UpLog),
    /// What was asked of a reactor, as bytes.
    Down(Vec<u8>),
    /// A time outside of a turn: see [`Recorder::mark`].
    Mark(u8, Nanos),
    /// Anything else: its kind and what it says.
    Note(u8, Vec<u8>),
}

/// Reads a recording.
pub struct Player {
    input: BufReader<File>,
}

impl Player {
    /// Opens a recording.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { input: BufReader::new(File::open(path)?) })
    }

    /// The next part; `None` at the end.
    pub fn next_part(&mut self) -> io::Result<Option<Part>> {
        let mut head = [0; 5];
        match self.input.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut head[1..])?,
        }
        let length = u32::from_le_bytes(head[1..].try_into().expect("4 bytes"));
        let mut bytes = Vec::new();
        (&mut self.input).take(u64::from(length)).read_to_end(&mut bytes)?;
        if bytes.len() < length as usize {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the recording is cut off"));
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a recording, or a damaged one");
        Ok(Some(match head[0] {
            b'T' => Part::Turn(Nanos::from_le_bytes(bytes.try_into().map_err(|_| invalid())?)),
            kind @ (b'S' | b'B' | b'P' | b'X' | WALL) => {
                Part::Mark(kind, Nanos::from_le_bytes(bytes.try_into().map_err(|_| invalid())?))
            }
            b'U' => Part::Up(UpLog::decode(&bytes).map_err(|_| invalid())?),
            b'D' => Part::Down(bytes),
            kind if NOTES.contains(&kind) => Part::Note(kind, bytes),
            _ => return Err(invalid()),
        }))
    }
}
