//! Where ports ask the agent, and the agent answers: the ring buffers of frames that the programs
//! hand over, and the way back.
//!
//! An answer is a frame on a packet socket, out of the port's own interface, with a mark that only
//! [`packet::to_port`] and this process know: drawn by lot at each start, in a map that root alone may
//! read. So nothing else that the host sends reaches a port, and what was sent with an older mark
//! is dropped. Considered: a redirect from a device of ours, which needs a header of its own for
//! the port, and a device; `BPF_PROG_TEST_RUN` with a redirect, a system call as well, for programs
//! that have to be loaded beside.

use crate::counters::monotonic_ns;
use crate::error::Error;
use crate::object::full_name;
use crate::pinned::{Maps, failed};
use aya::maps::{HashMap as AyaMap, Map, MapData, RingBuf};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, setsockopt, socket, sockopt,
};
use packet::{DELIVERED_MARK, FlowEvent, HandedOff, Plain, Port, PortKey};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

/// Both directions.
#[derive(Debug)]
pub struct Desk {
    /// Frames of ports that want to know their addresses: DHCP, DHCPv6, router solicitations.
    pub leases: Questions,
    /// Frames of ports that ask anything else: metadata, names.
    pub requests: Questions,
    /// Connections that were opened and denied, of ports that tell of them.
    pub flows: FlowEvents,
    /// The way back.
    pub answers: Answers,
    /// Where ports are that have not asked anything.
    pub ports: PortMap,
}

/// A frame for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedFrame {
    /// Time, nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Interface of the hook: where an answer goes.
    pub ifindex: u32,
    /// Number of the port that it comes from, which the guard has made sure of.
    pub port: u32,
    /// The VLAN of the port's tag, 0 for none.
    pub vlan: u32,
    /// All of it. A checksum that the sender has left to its device is not filled in.
    pub frame: Vec<u8>,
}

/// The frames of one ring buffer. Its descriptor is readable when one waits.
pub struct Questions(RingBuf<MapData>);

/// Connections that ports have opened or were denied. Its descriptor is readable when one waits.
pub struct FlowEvents(RingBuf<MapData>);

/// Sends frames to ports. A clone sends by the same socket.
#[derive(Clone, Debug)]
pub struct Answers {
    socket: Arc<OwnedFd>,
    /// Interfaces as the socket wants them.
    devices: HashMap<u32, LinkAddr>,
}

impl Desk {
    pub(crate) fn open(directory: &Path, maps: &mut Maps) -> Result<Desk, Error> {
        let open = |name: &'static str| {
            let pin = directory.join(full_name(name));
            let data = MapData::from_pin(pin).map_err(failed(name, "open"))?;
            RingBuf::try_from(Map::RingBuf(data)).map_err(failed(name, "open"))
        };
        let (leases, requests) = (Questions(open("handed")?), Questions(open("asked")?));
        let flows = FlowEvents(open("told")?);
        let ports = PortMap::open(directory)?;
        let mark = draw();
        let answers = Answers::open(mark)?;
        maps.answers.set(0, &mark)?;
        Ok(Desk { leases, requests, flows, answers, ports })
    }
}

/// A mark that means nothing else.
fn draw() -> u32 {
    loop {
        let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
        let mark = u32::from_ne_bytes([a, b, c, d]);
        if mark != 0 && mark != DELIVERED_MARK {
            return mark;
        }
    }
}

/// The interfaces of ports.
pub struct PortMap(AyaMap<MapData, <PortKey as Plain>::Bytes, <Port as Plain>::Bytes>);

impl PortMap {
    fn open(directory: &Path) -> Result<PortMap, Error> {
        const NAME: &str = "ports";
        let data =
            MapData::from_pin(directory.join(full_name(NAME))).map_err(failed(NAME, "open"))?;
        AyaMap::try_from(Map::HashMap(data)).map(PortMap).map_err(failed(NAME, "open"))
    }

    /// The interface of each port, by its number. Takes a system call or two for each.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn interfaces(&self) -> Result<Vec<(u32, u32)>, Error> {
        let interface = |entry: Result<_, _>| {
            let (key, port): (<PortKey as Plain>::Bytes, <Port as Plain>::Bytes) =
                entry.map_err(failed("ports", "read"))?;
            Ok((Port::from_bytes(&port).number, PortKey::from_bytes(&key).ifindex))
        };
        self.0.iter().map(interface).collect()
    }
}

impl std::fmt::Debug for PortMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortMap").finish_non_exhaustive()
    }
}

impl Iterator for Questions {
    type Item = HandedFrame;

    /// The oldest frame that waits, if one does.
    fn next(&mut self) -> Option<HandedFrame> {
        let record = self.0.next()?;
        let bytes = <<HandedOff as Plain>::Bytes>::try_from(&*record).ok()?;
        let handed = HandedOff::from_bytes(&bytes);
        let length = usize::try_from(handed.length).unwrap_or(0).min(handed.frame.len());
        Some(HandedFrame {
            time_ns: handed.time_ns,
            ifindex: handed.ifindex,
            port: handed.port,
            vlan: handed.vlan,
            frame: handed.frame[..length].to_vec(),
        })
    }
}

impl AsRawFd for Questions {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Questions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questions").finish_non_exhaustive()
    }
}

impl FlowEvents {
    /// Now, on the clock of events.
    #[must_use]
    pub fn now_ns() -> u64 {
        monotonic_ns()
    }
}

impl Iterator for FlowEvents {
    type Item = FlowEvent;

    /// The oldest one that waits, if one does.
    fn next(&mut self) -> Option<FlowEvent> {
        let record = self.0.next()?;
        let bytes = <<FlowEvent as Plain>::Bytes>::try_from(&*record).ok()?;
        Some(FlowEvent::from_bytes(&bytes))
    }
}

impl AsRawFd for FlowEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for FlowEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::fmt::Debug for FlowEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowEvents").finish_non_exhaustive()
    }
}

impl Answers {
    fn open(mark: u32) -> Result<Answers, Error> {
        let failed = |action| move |errno: Errno| Error::Socket { action, cause: errno.into() };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        // Without a protocol it hears nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .map_err(failed("open a packet socket"))?;
        setsockopt(&socket, sockopt::Mark, &mark).map_err(failed("mark a packet socket"))?;
        Ok(Answers { socket: Arc::new(socket), devices: HashMap::new() })
    }

    /// Sends a frame to the port on this interface, from the Ethernet header on, with all its
    /// checksums. Never waits: a port that does not take its frames loses them.
    ///
    /// # Errors
    /// [`Error::NoInterface`] or [`Error::Socket`].
    pub fn send(&mut self, ifindex: u32, frame: &[u8]) -> Result<(), Error> {
        let device = self.device(ifindex)?;
        match sendto(self.socket.as_raw_fd(), frame, &device, MsgFlags::empty()) {
            Ok(_) => Ok(()),
            // Dropped on its way, by `to_port` for one, which has counted it.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(()),
            Err(Errno::ENXIO | Errno::ENODEV) => {
                self.devices.remove(&ifindex);
                Err(Error::NoInterface { ifindex })
            }
            Err(errno) => Err(Error::Socket { action: "send to a port", cause: errno.into() }),
        }
    }

    /// The interface's address; all are looked at together when one is not known yet.
    fn device(&mut self, ifindex: u32) -> Result<LinkAddr, Error> {
        if !self.devices.contains_key(&ifindex) {
            let all = getifaddrs().map_err(|errno| Error::Socket {
                action: "list interfaces",
                cause: errno.into(),
            })?;
            let links = all.filter_map(|found| found.address?.as_link_addr().copied());
            self.devices = links
                .filter_map(|link| Some((u32::try_from(link.ifindex()).ok()?, link)))
                .collect();
        }
        self.devices.get(&ifindex).copied().ok_or(Error::NoInterface { ifindex })
    }
}
