//! Links, addresses and network namespaces of a Linux host.
//!
//! The only crate that speaks rtnetlink and that enters namespaces. It says what is there and makes
//! one thing at a time; it never decides what should be there, never attaches programs to a
//! device, and never starts a process or a private mount namespace.
//!
//! Source: rtnetlink(7), setns(2), and iproute2's `ip/ipnetns.c` for the files in `/run/netns`.

mod address;
mod create;
mod error;
mod frame;
mod ipsec;
mod link;
mod losses;
mod namespace;
mod netlink;
mod news;
mod raw;
mod route;
pub mod scratch;
mod sysctl;
mod tap;
mod tun;
mod way;

pub use address::{Address, DefaultRoute, Origin};
pub use create::{VethSpec, VxlanSpec};
pub use error::Error;
pub use frame::FrameSender;
pub use link::{Arp, Identity, Kind, LinkInfo, Promiscuity};
pub use losses::Losses;
pub use namespace::Namespace;
pub use netlink::Netlink;
pub use news::LinkNews;
pub use raw::{DatagramListener, Heard, PacketSender};
pub use route::To;
pub use tap::{Tap, TappedFrame, wait_for_frames};
pub use tun::Tun;
pub use way::Way;
