//! Packets in fragments: the first one is decided, the others follow.

use super::frame::{Ip, icmp, udp};
use super::world::{A, A_NUMBER, B, B_NUMBER, NOW, R, a_to, connection, from_a, from_r, now};
use super::{Memory, Vector};
use crate::{CtState, DropReason, FRAGMENT_SECONDS, PortKey};

const MORE: u16 = 0x2000;
/// Of the packets that follow; the next ones are others.
const ID: u32 = 7;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = header_vectors();
    vectors.extend(following_vectors());
    vectors.extend(alone_vectors());
    vectors
}

/// The first fragment of a datagram, or a later one.
fn fragment(from: &str, to: &str, field: u16) -> Ip {
    let payload = if field & 0x1fff == 0 { udp(1, 2) } else { vec![0xff; 16] };
    Ip { fragment: field, ..Ip::new(from, to, 17, payload) }
}

/// The same over IPv6.
fn fragment_v6(from: &str, to: &str, (offset, more): (u16, bool), id: u32) -> Ip {
    let payload = if offset == 0 { udp(1, 2) } else { vec![0xff; 16] };
    let [o0, o1] = (offset << 3 | u16::from(more)).to_be_bytes();
    let mut extra = vec![17, 0, o0, o1];
    extra.extend(id.to_be_bytes());
    Ip { extra, next: 44, ..Ip::new(from, to, 17, payload) }
}

/// The maps after this vector's frame, and the frame of the one that is made.
fn after(first: &Vector) -> impl FnOnce(&mut Memory) + use<> {
    let (_, left) = first.run();
    move |memory| {
        memory.fragments = left.fragments;
        memory.buckets = left.buckets;
    }
}

fn header_vectors() -> Vec<Vector> {
    use DropReason as Why;
    let overlap = Ip { fragment: 0x0001, ..Ip::new(A.v4, B.v4, 6, vec![0xff; 16]) };
    let tiny = Ip { fragment: MORE, ..Ip::new(A.v4, B.v4, 6, vec![0; 8]) };
    let opened = now(connection((A.v4, 1), (R.v4, 2), 17), CtState::Opening);
    vec![
        from_a("first fragment has its ports", a_to(R, &fragment(A.v4, R.v4, MORE)))
            .leaves(&[opened])
            .a_reaches_r(),
        from_a("fragment that would rewrite a tcp header", a_to(B, &overlap))
            .dropped(A_NUMBER, Why::FragmentOverlap),
        from_a("first fragment too short for its tcp header", a_to(B, &tiny))
            .dropped(A_NUMBER, Why::Malformed),
    ]
}

fn following_vectors() -> Vec<Vector> {
    let opened = now(connection((A.v4, 1), (R.v4, 2), 17), CtState::Opening);
    let to_r = from_a("first", a_to(R, &fragment(A.v4, R.v4, MORE)));
    let to_b = from_a("first", a_to(B, &fragment(A.v4, B.v4, MORE)));
    let to_b_v6 = from_a("first", a_to(B, &fragment_v6(A.v6, B.v6, (0, true), ID)));
    let to_a = from_r("first", fragment(R.v4, A.v4, MORE).frame(A.mac, R.mac));
    let asked = Ip { fragment: MORE, ..Ip::new(A.v4, R.v4, 1, icmp(8, 0, [0, 7, 0, 1], &[0; 8])) };
    let rest = Ip { fragment: 0x0005, ..Ip::new(A.v4, R.v4, 1, vec![0; 16]) };
    let asked = from_a("first", a_to(R, &asked));
    vec![
        from_a("a later fragment follows and opens nothing", {
            a_to(R, &fragment(A.v4, R.v4, 0x0005))
        })
        .with(after(&to_r))
        .leaves(&[opened])
        .a_reaches_r(),
        from_a("and so does one in the middle", a_to(R, &fragment(A.v4, R.v4, MORE | 0x0005)))
            .with(after(&to_r))
            .a_reaches_r(),
        from_a("as long as its receiver waits", a_to(R, &fragment(A.v4, R.v4, 0x0005)))
            .with(after(&to_r))
            .meta(|meta| meta.now_ns = NOW + FRAGMENT_SECONDS * 1_000_000_000)
            .a_reaches_r(),
        from_a("on both sides on one host", a_to(B, &fragment(A.v4, B.v4, 0x0005)))
            .with(after(&to_b))
            .a_reaches_b(),
        from_a("and over ipv6", a_to(B, &fragment_v6(A.v6, B.v6, (2, false), ID)))
            .with(after(&to_b_v6))
            .a_reaches_b(),
        from_r("and out of the tunnel", fragment(R.v4, A.v4, 0x0005).frame(A.mac, R.mac))
            .with(after(&to_a))
            .reaches_a(),
        from_a("and that of an echo request", a_to(R, &rest)).with(after(&asked)).a_reaches_r(),
    ]
}

fn alone_vectors() -> Vec<Vector> {
    use DropReason::{FragmentAlone, PolicyDenied};
    let to_r = from_a("first", a_to(R, &fragment(A.v4, R.v4, MORE)));
    let to_b = from_a("first", a_to(B, &fragment(A.v4, B.v4, MORE)));
    let to_b_v6 = from_a("first", a_to(B, &fragment_v6(A.v6, B.v6, (0, true), ID)));
    let later = || a_to(R, &fragment(A.v4, R.v4, 0x0005));
    let other_protocol = Ip { fragment: 0x0005, ..Ip::new(A.v4, R.v4, 132, vec![0; 16]) };
    // B is in another network now; what A sends it is still B's to decide.
    let closed = |memory: &mut Memory| {
        if let Some(port) = memory.ports.get_mut(&PortKey::untagged(2)) {
            port.net = 2;
        }
    };
    vec![
        from_a("a later fragment before its first one", later())
            .leaves(&[])
            .dropped(A_NUMBER, FragmentAlone),
        from_a("one whose receiver has given up", later())
            .with(after(&to_r))
            .meta(|meta| meta.now_ns = NOW + FRAGMENT_SECONDS * 1_000_000_000 + 1)
            .dropped(A_NUMBER, FragmentAlone),
        from_a("one of a packet to another station", later())
            .with(after(&to_b))
            .dropped(A_NUMBER, FragmentAlone),
        from_a("one of another protocol", a_to(R, &other_protocol))
            .with(after(&to_r))
            .dropped(A_NUMBER, FragmentAlone),
        from_a("one of another packet", a_to(B, &fragment_v6(A.v6, B.v6, (2, false), ID + 1)))
            .with(after(&to_b_v6))
            .dropped(A_NUMBER, FragmentAlone),
        from_a("one from before another policy", later())
            .with(after(&to_r))
            .with(|memory| {
                memory.ports.values_mut().for_each(|port| port.generation += 1);
            })
            .dropped(A_NUMBER, FragmentAlone),
        {
            let first = from_a("a first fragment that is refused", to_b.before.frame.clone());
            let first = first.with(closed);
            first
                .sent(A_NUMBER)
                .leaves(&[now(connection((A.v4, 1), (B.v4, 2), 17), CtState::Opening)])
                .dropped(B_NUMBER, PolicyDenied)
        },
        {
            let refused = to_b.clone().with(closed);
            let opened = now(connection((A.v4, 1), (B.v4, 2), 17), CtState::Opening);
            from_a("brings no later one to the port", a_to(B, &fragment(A.v4, B.v4, 0x0005)))
                .with(after(&refused))
                .with(closed)
                .sent(A_NUMBER)
                .leaves(&[opened])
                .dropped(B_NUMBER, FragmentAlone)
        },
    ]
}
