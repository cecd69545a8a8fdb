//! Switching a device's offloads, as `ethtool -K` does it: netlink of the kernel's
//! `Documentation/networking/ethtool-netlink.rst`.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};

const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NESTED: u16 = 1 << 15;
const NLMSG_ERROR: u16 = 2;
/// The controller of generic netlink: its number, a command and two attributes.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `ETHTOOL_MSG_FEATURES_SET`.
const FEATURES_SET: u8 = 12;

/// What leaves work to the device or to whoever comes next, in both directions.
pub(crate) const OFFLOADS: [&str; 7] = [
    "tx-checksum-ip-generic",
    "rx-checksum",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-generic-segmentation",
    "rx-gro",
];

/// Switches features off, on a device of the calling thread's namespace.
pub(crate) fn switch_off(device: &str, features: &[&str]) {
    let (family, protocol) = (AddressFamily::Netlink, SockProtocol::NetlinkGeneric);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    let answer = ask(&socket, CONTROLLER, GET_FAMILY, &attribute(FAMILY_NAME, b"ethtool\0"));
    let number = find(&answer[4..], FAMILY_ID).expect("the kernel has ethtool over netlink");
    let number = u16::from_ne_bytes([number[0], number[1]]);
    let name = [device.as_bytes(), &[0]].concat();
    let header = attribute(1 | NESTED, &attribute(2, &name));
    // Each bit by its name, without the flag that would switch it on.
    let bits: Vec<u8> = features
        .iter()
        .flat_map(|feature| {
            let name = attribute(2, &[feature.as_bytes(), &[0]].concat());
            attribute(1 | NESTED, &name)
        })
        .collect();
    let wanted = attribute(3 | NESTED, &attribute(3 | NESTED, &bits));
    ask(&socket, number, FEATURES_SET, &[header, wanted].concat());
}

/// Sends a request; the payload of the answer, if there is one besides the acknowledgement.
fn ask(socket: &OwnedFd, kind: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty()).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 8192];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let kind = u16::from_ne_bytes([buffer[4], buffer[5]]);
        if kind == NLMSG_ERROR {
            let code = i32::from_ne_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]);
            assert_eq!(code, 0, "the kernel refuses command {command}");
            return answer;
        }
        answer = buffer[16..length].to_vec();
    }
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let [l0, l1, k0, k1, ..] = attributes {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        if u16::from_ne_bytes([*k0, *k1]) == kind {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}
