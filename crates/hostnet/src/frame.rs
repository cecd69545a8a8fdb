//! Whole frames, past the host's stack.
//!
//! Source: packet(7).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket,
    },
};

use crate::{Error, Namespace};

/// Sends frames out of one device.
#[derive(Debug)]
pub struct FrameSender(OwnedFd);

impl Namespace {
    /// A way to send frames out of a device of this namespace.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such device, or what the kernel says.
    pub fn frame_sender(&self, device: &str) -> Result<FrameSender, Error> {
        let failed = |errno: Errno| Error::kernel(&self.name, format!("send by {device}"), errno);
        self.run_in(|| {
            let link = link_address(device)?;
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            // Of no protocol: nothing is heard.
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>)?;
            bind(socket.as_raw_fd(), &link)?;
            Ok(FrameSender(socket))
        })?
        .map_err(failed)
    }
}

impl FrameSender {
    /// Sends a frame, which begins with its Ethernet header.
    ///
    /// # Errors
    /// What the kernel says, such as that the device is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(send(self.0.as_raw_fd(), frame, MsgFlags::empty()).map(drop)?)
    }
}

/// The address of a device, for sockets of the family `AF_PACKET`, in the caller's namespace.
pub(crate) fn link_address(device: &str) -> Result<LinkAddr, Errno> {
    let mut all = getifaddrs()?.filter(|found| found.interface_name == device);
    all.find_map(|found| found.address?.as_link_addr().copied()).ok_or(Errno::ENODEV)
}
