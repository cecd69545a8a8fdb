//! Listening to a device: frames as they come in and leave, each with the time at which the kernel
//! saw it. What comes in is heard before any eBPF program on TCX sees it, so what those drop is
//! heard too; what leaves is heard after them.
//!
//! Source: packet(7); `__netif_receive_skb_core` and `dev_hard_start_xmit` in Linux'
//! `net/core/dev.c`.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol,
            SockType, bind, recvmsg, setsockopt, socket, sockopt,
        },
        time::TimeSpec,
    },
};

use crate::{Error, Namespace, frame::link_address};

/// Bytes of frames that may wait in the kernel for the listener.
const BUFFER_BYTES: usize = 16 << 20;

/// Bytes of a frame that are kept: the longest that the kernel segments later (GSO), with headers.
const FRAME_BYTES: usize = 1 << 17;

/// `PACKET_OUTGOING` of Linux' `if_packet.h`.
const OUTGOING: u8 = 4;

/// A listener on one device.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// Frames that the kernel had no room for.
    missed: u32,
}

/// A frame that was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TappedFrame {
    /// When the kernel saw it, since 1970.
    pub time: Duration,
    /// It left by the device; otherwise it came in.
    pub is_outgoing: bool,
    /// Its bytes, from the Ethernet header on. A VLAN tag that the kernel keeps beside the frame is
    /// not among them.
    pub bytes: Vec<u8>,
    /// How long it was.
    pub length: usize,
}

impl Namespace {
    /// Listens to a device of this namespace from now on.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such device, or what the kernel says.
    pub fn tap(&self, device: &str) -> Result<Tap, Error> {
        let failed = |errno: Errno| Error::kernel(&self.name, format!("listen to {device}"), errno);
        self.run_in(|| {
            let link = link_address(device)?;
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            setsockopt(&socket, sockopt::RxqOvfl, &1)?;
            bind(socket.as_raw_fd(), &link)?;
            let tap = Tap { socket, buffer: vec![0; FRAME_BYTES], missed: 0 };
            // What came before it was bound to the device may be another device's.
            tap.drain()?;
            Ok(tap)
        })?
        .map_err(failed)
    }
}

impl Tap {
    /// The next frame, if one waits.
    ///
    /// # Errors
    /// What the kernel says, such as that the device is gone.
    pub fn take(&mut self) -> io::Result<Option<TappedFrame>> {
        let mut control = cmsg_space!(TimeSpec, u32);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_TRUNC;
        let heard = match recvmsg::<LinkAddr>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            flags,
        ) {
            Ok(heard) => heard,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut time = Duration::ZERO;
        for message in heard.cmsgs()? {
            match message {
                ControlMessageOwned::ScmTimestampns(at) => time = at.into(),
                ControlMessageOwned::RxqOvfl(missed) => self.missed = missed,
                _ => {}
            }
        }
        let (length, from) = (heard.bytes, heard.address);
        let is_outgoing = from.is_some_and(|from| from.pkttype() == OUTGOING);
        let bytes = self.buffer[..length.min(FRAME_BYTES)].to_vec();
        Ok(Some(TappedFrame { time, is_outgoing, bytes, length }))
    }

    /// Frames that were there and for which the kernel had no room, as it has said with the last
    /// frame.
    #[must_use]
    pub fn missed(&self) -> u32 {
        self.missed
    }

    fn drain(&self) -> Result<(), Errno> {
        let mut nothing = [0; 1];
        for _ in 0..BUFFER_BYTES {
            match nix::sys::socket::recv(self.socket.as_raw_fd(), &mut nothing, MsgFlags::empty()) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Waits until one of them has a frame, but not longer than this. A signal ends it too.
///
/// # Errors
/// What the kernel says.
pub fn wait_for_frames(taps: &[&Tap], patience: Duration) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> =
        taps.iter().map(|tap| PollFd::new(tap.socket.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
