//! A device whose other end is this process: what the namespace's kernel sends to it is read here, and
//! what is written here comes in by it. Whole IP packets, without an Ethernet header. It goes
//! with the process.
//!
//! Source: Linux' `Documentation/networking/tuntap.rst`.

use std::io;

use tokio::io::unix::AsyncFd;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::{Error, Namespace};

/// A TUN device.
pub struct Tun(AsyncFd<SyncDevice>);

impl Namespace {
    /// Makes a TUN device in this namespace; it is down. Inside of a runtime.
    ///
    /// # Errors
    /// What the kernel says, such as that it has no TUN devices (module `tun`).
    pub fn tun(&self, name: &str) -> Result<Tun, Error> {
        let failed = |error| Error::kernel(self.name(), format!("make TUN device {name}"), error);
        let device = self.run_in(|| {
            // Frames come as they would be sent, one by one: nothing is left to do for a device.
            let builder = DeviceBuilder::new().name(name).layer(Layer::L3);
            let device =
                builder.packet_information(false).offload(false).enable(false).build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        })?;
        #[expect(
            deprecated,
            reason = "`register` is unsafe for values that give their descriptor away while they live; \
                      this one does not, and closes it when dropped"
        )]
        device.and_then(AsyncFd::new).map(Tun).map_err(failed)
    }
}

impl Tun {
    /// Waits for the next packet; its length. One that is longer than the buffer is cut. Dropping it
    /// loses nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|device| device.get_ref().recv(buffer)) {
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    /// Lets a packet come in. It never waits.
    ///
    /// # Errors
    /// What the kernel says; the packet is lost then.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.get_ref().send(packet).map(drop)
    }
}
