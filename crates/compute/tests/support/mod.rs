//! What tests of the drivers share.

mod crash;

pub(crate) use crash::Crash;
