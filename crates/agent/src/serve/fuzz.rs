//! What a guest may send to the agent: whatever it is, nothing panics, and only the guest is answered.

use std::sync::Arc;

use super::{frame, guests::Guests, reply};
use crate::sample;

/// Whether a frame of a guest is answered.
pub(crate) fn read(frame: &[u8]) -> bool {
    let guests = sample_guests();
    let Some(guest) = guests.get(5) else { return false };
    let Ok((frames, _)) = reply(&guest, frame, |_| true) else { return false };
    let may_be = |to: &[u8]| to == guest.port.mac || to[0] & 1 != 0;
    assert!(frames.iter().all(|answer| may_be(&answer[..6])), "{frames:02x?}");
    true
}

/// The guests of the sample's host, one of which is served.
pub(super) fn sample_guests() -> Guests {
    let mut desired = sample::two_networks();
    let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
    desired.upsert(sample::served(port, 70));
    desired.upsert(wire::object::Object::Subnet(sample::subnet(70, sample::NETWORK_A, 0)));
    let mut guests = Guests::default();
    guests.follow(&Arc::new(desired));
    guests
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let mac = [2, 0, 0, 0, 0, 5];
    let mut discover = vec![1, 1, 6, 0, 1, 2, 3, 4];
    discover.resize(28, 0);
    discover.extend(mac);
    discover.resize(236, 0);
    discover.extend([99, 130, 83, 99]);
    let mut request = discover.clone();
    discover.extend([53, 1, 1, 55, 4, 1, 3, 6, 119, 57, 2, 5, 220, 12, 2, b'v', b'm', 255]);
    request.extend([53, 1, 3, 50, 4, 10, 0, 0, 9, 61, 3, 1, 2, 3, 82, 4, 1, 2, 0, 7, 255]);
    let client = [0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 5];
    let mut solicit = vec![1, 7, 8, 9];
    solicit.extend(client);
    solicit.extend([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    solicit.extend([0, 25, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    solicit.extend([0, 6, 0, 6, 0, 23, 0, 24, 0, 56, 0, 14, 0, 0]);
    solicit.extend([0, 39, 0, 5, 1, 2, b'v', b'm', 0]);
    let v4 = |payload: &[u8]| {
        let to = frame::To { mac: [0xff; 6], ip: [255; 4].into(), port: 67 };
        frame::udp4(([0, 0, 0, 0].into(), 68), to, payload)
    };
    let own = wire::object::link_local(mac);
    let servers = frame::To { mac: [0x33; 6], ip: "ff02::1:2".parse().unwrap_or(own), port: 547 };
    let routers = ("ff02::2".parse().unwrap_or(own), [0x33; 6]);
    let all = [
        v4(&discover),
        v4(&request),
        frame::udp6((own, 546), servers, &solicit),
        frame::icmpv6((own, mac), routers, (133, [0; 4]), &[1, 1, 2, 0, 0, 0, 0, 5]),
    ];
    all.into_iter().flatten().map(|frame| from(frame, mac)).collect()
}

/// The frame as of this MAC.
fn from(mut frame: Vec<u8>, mac: [u8; 6]) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac);
    frame
}
