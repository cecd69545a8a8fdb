//! Connections to a listening socket, within bounds.
//!
//! [`Entrance`] accepts them and survives a lack of open files; [`Seats`] knows who is connected
//! and who makes room for a newcomer. What a connection speaks is its server's matter.

mod entrance;
mod seats;
mod source;

pub use entrance::{Entrance, Newcomer};
pub use seats::{Full, Occupancy, Seat, Seats};
pub use source::source;
