//! What both programs share.

pub mod bare;
pub mod motion;
