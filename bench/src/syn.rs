//! Halves of TCP connections: SYNs whose answers nobody takes.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use hostnet::Namespace;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use crate::{
    Failure,
    load::{BURST, FLOWS_PER_SECOND},
};

const TCP: u8 = 6;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const SYN: u8 = 2;
/// The first of the ports that they come from.
const FIRST_PORT: u16 = 1_024;

/// Lets a VM do nothing with TCP but send [`flood`]: it does not reset what it is answered, as hosts whose
/// addresses are borrowed do not. The flood's socket is of no protocol, so the rule is not about it.
pub(crate) fn mute(vm: &Namespace) -> Result<(), Failure> {
    let mut command = Command::new("ip");
    command.args(["rule", "add", "pref", "10", "ipproto", "tcp", "blackhole"]);
    match vm.run_in(|| command.status())??.success() {
        true => Ok(()),
        false => Err("ip rule: cannot keep a VM from answering".into()),
    }
}

/// Sends them as steadily as [`crate::load::Load::Flood`] does its flows.
pub(crate) fn flood(to: Ipv4Addr, port: u16, time: Duration) -> Result<Vec<f64>, Failure> {
    let from = own_address(to)?;
    let raw =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let [a, b, c, d] = to.octets();
    let target = SockaddrIn::new(a, b, c, d, 0);
    let pause = Duration::from_secs(1) * u32::from(BURST) / FLOWS_PER_SECOND;
    let (start, mut sent, mut bursts, mut source) = (Instant::now(), 0_u32, 0_u32, FIRST_PORT);
    while start.elapsed() < time {
        for _ in 0..BURST {
            source = source.checked_add(1).unwrap_or(FIRST_PORT);
            let packet = syn((from, source), (to, port));
            // What the device has no room for is not sent.
            let done = sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::empty());
            sent += u32::from(done.is_ok());
        }
        bursts += 1;
        thread::park_timeout((pause * bursts).saturating_sub(start.elapsed()));
    }
    Ok(vec![f64::from(sent) / start.elapsed().as_secs_f64() / 1e3])
}

/// The address that this host has towards another.
fn own_address(to: Ipv4Addr) -> Result<Ipv4Addr, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, 1))?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(_) => Err("an address of the other family".into()),
    }
}

/// RFC 791 and 9293. The kernel fills in the IP header's checksum.
fn syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> [u8; IP_BYTES + TCP_BYTES] {
    let mut packet = [0; IP_BYTES + TCP_BYTES];
    let (ip, tcp) = packet.split_at_mut(IP_BYTES);
    (ip[0], ip[3], ip[8], ip[9]) = (0x45, 40, 64, TCP);
    ip[12..16].copy_from_slice(&from.0.octets());
    ip[16..20].copy_from_slice(&to.0.octets());
    tcp[0..2].copy_from_slice(&from.1.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.1.to_be_bytes());
    (tcp[12], tcp[13]) = (0x50, SYN);
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let sum = words(&ip[12..20]) + words(tcp) + u32::from(TCP) + 20;
    tcp[16..18].copy_from_slice(&folded(sum));
    packet
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
}

/// The checksum of a sum of words.
fn folded(sum: u32) -> [u8; 2] {
    let once = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!((once & 0xffff) + (once >> 16))).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_syn_is_right() {
        let ends = ((Ipv4Addr::new(10, 0, 0, 1), 1_025), (Ipv4Addr::new(10, 0, 0, 2), 7_002));
        let packet = syn(ends.0, ends.1);
        let (ip, tcp) = packet.split_at(IP_BYTES);
        let sum = words(&ip[12..20]) + words(tcp) + u32::from(TCP) + 20;
        assert_eq!(folded(sum), [0, 0]);
        assert_ne!(folded(sum + 1), [0, 0]);
    }
}
