//! Why a message was not read or not written, and where in it.

use crate::bounds::Violation;
use crate::plan::{Scalar, Stopped};
use crate::wire::Malformed;

/// Why bytes were not read. Shown as `Move.path[3].x: 2 is not in -1 to 1`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct DecodeError {
    /// The message's full name and the way to the field: `Move.path[3].x`, `Move.names["a"]`.
    pub path: String,
    /// What is wrong there.
    pub reason: DecodeReason,
}

/// What is wrong with bytes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DecodeReason {
    #[error("no protobuf message: {0}")]
    Malformed(#[from] Malformed),
    #[error("messages within messages, more than {max} deep")]
    TooDeep { max: u32 },
    #[error("more than {max} items, entries and messages in one message")]
    TooManyItems { max: usize },
    #[error("{bytes} bytes; at most {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The sink gave up and has the reason.
    #[error("stopped by the one who takes the values")]
    Stopped,
}

/// Why values were not written. Shown as `Move.path[3].x: 2 is not in -1 to 1`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct EncodeError {
    /// The message's full name and the way to the field: `Move.path[3].x`, `Move.names["a"]`.
    pub path: String,
    /// What is wrong there.
    pub reason: EncodeReason,
}

/// What is wrong with values.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum EncodeReason {
    /// The source gave another variant than it was asked for.
    #[error("a value of another type than the field's")]
    WrongType,
    #[error("messages within messages, more than {max} deep")]
    TooDeep { max: u32 },
    #[error("more than {max} items, entries and messages in one message")]
    TooManyItems { max: usize },
    #[error("more than {max} bytes")]
    TooLarge { max: usize },
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The source gave up and has the reason.
    #[error("stopped by the one who gives the values")]
    Stopped,
}

/// A reason on its way up; each message that it passes adds its part of the path. Boxed: on the fast way it is one null.
#[derive(Debug)]
pub(crate) struct Failure<R> {
    reason: R,
    /// From the inside out.
    path: Vec<String>,
}

impl<R> Failure<R> {
    #[cold]
    pub fn new(reason: impl Into<R>) -> Box<Self> {
        Box::new(Self { reason: reason.into(), path: Vec::new() })
    }

    #[cold]
    pub fn field(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(format!(".{name}"));
        self
    }

    #[cold]
    pub fn index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.push(format!("[{index}]"));
        self
    }

    #[cold]
    pub fn key(mut self: Box<Self>, key: &Scalar<'_>) -> Box<Self> {
        self.path.push(format!("[{key}]"));
        self
    }

    fn end(self, message: &str) -> (String, R) {
        let path = std::iter::once(message).chain(self.path.iter().rev().map(String::as_str)).collect();
        (path, self.reason)
    }
}

impl DecodeError {
    #[cold]
    pub(crate) fn new(message: &str, failure: Failure<DecodeReason>) -> Self {
        let (path, reason) = failure.end(message);
        Self { path, reason }
    }
}

impl EncodeError {
    #[cold]
    pub(crate) fn new(message: &str, failure: Failure<EncodeReason>) -> Self {
        let (path, reason) = failure.end(message);
        Self { path, reason }
    }
}

impl From<Malformed> for Box<Failure<DecodeReason>> {
    #[cold]
    fn from(reason: Malformed) -> Self {
        Failure::new(reason)
    }
}

impl From<Violation> for Box<Failure<DecodeReason>> {
    #[cold]
    fn from(reason: Violation) -> Self {
        Failure::new(reason)
    }
}

impl From<Stopped> for Box<Failure<DecodeReason>> {
    #[cold]
    fn from(Stopped: Stopped) -> Self {
        Failure::new(DecodeReason::Stopped)
    }
}
