//! Packets that are larger than the network's MTU.

use super::Vector;
use super::frame::{Ip, icmp, udp, with_icmpv6_checksum};
use super::rules::Rule;
use super::world::{
    A, A_IFINDEX, A_NUMBER, B, GATEWAY, GATEWAY_V6, MTU, NOW, R, Station, a_to, addr, connection,
    earlier, from_a, now,
};
use crate::{
    Addr, AddrKey, Behind, Budget, CtState, Direction, DropReason, FLOODS_PER_PORT, PortKey,
    PrefixKey, Source,
};

const DONT_FRAGMENT: u16 = 0x4000;
/// Bytes of the packet that an answer quotes.
const QUOTED: usize = 128;

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = passing_vectors();
    vectors.extend(answered_vectors());
    vectors.extend(refused_vectors());
    vectors.extend(segment_vectors());
    vectors.extend(stateless_vectors());
    vectors
}

/// A datagram from A of so many bytes, IP header included.
fn datagram(to: Station, bytes: u32, fragment: u16) -> Ip {
    let ip = Ip::new(A.v4, to.v4, 17, sized(udp(1000, 53), bytes - 20));
    Ip { fragment, ..ip }
}

fn datagram_v6(to: Station, bytes: u32) -> Ip {
    Ip::new(A.v6, to.v6, 17, sized(udp(1000, 53), bytes - 40))
}

fn sized(mut payload: Vec<u8>, bytes: u32) -> Vec<u8> {
    let counting = (0..=250).cycle();
    let missing = usize::try_from(bytes).expect("small") - payload.len();
    payload.extend(counting.take(missing));
    payload
}

/// What A gets back for a packet to a station, from this address.
fn answer(from: Station, source: &str, packet: &Ip) -> Vec<u8> {
    let quote = &packet.bytes()[..QUOTED];
    let [_, _, m0, m1] = MTU.to_be_bytes();
    let message = icmp(3, 4, [0, 0, m0, m1], quote);
    let to = packet.source.to_string();
    let ip = if packet.source.is_ipv4() {
        Ip {
            fragment: DONT_FRAGMENT,
            ..Ip::new(source, &to, 1, super::frame::with_checksum(message))
        }
    } else {
        let message = icmp(2, 0, [0, 0, m0, m1], quote);
        Ip::new(source, &to, 58, with_icmpv6_checksum(source, &to, message))
    };
    let mut bytes = ip.bytes();
    if packet.source.is_ipv4() {
        // Precedence and identification, and the checksum that goes with them.
        bytes[1] = 0xc0;
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
        let sum = super::frame::checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum);
    }
    super::frame::ethernet(A.mac, from.mac, ip.ethertype(), &bytes)
}

fn passing_vectors() -> Vec<Vector> {
    vec![
        from_a("a packet as large as the mtu", a_to(R, &datagram(R, MTU, DONT_FRAGMENT)))
            .a_reaches_r(),
        from_a("one as large as the mtu over ipv6", a_to(R, &datagram_v6(R, MTU))).a_reaches_r(),
        from_a("padding does not make it larger", {
            let mut frame = a_to(R, &datagram(R, MTU, DONT_FRAGMENT));
            frame.extend([0; 4]);
            frame
        })
        .a_reaches_r(),
        from_a("a packet that may be fragmented passes", a_to(R, &datagram(R, MTU + 1, 0)))
            .a_reaches_r(),
        from_a("a network without mtu has no limit", a_to(R, &datagram(R, 3_000, DONT_FRAGMENT)))
            .with(|memory| {
                memory.addrs.values_mut().for_each(|source| source.mtu = 0);
            })
            .a_reaches_r(),
    ]
}

fn answered_vectors() -> Vec<Vector> {
    use DropReason::PacketTooBig;
    let big = |to| datagram(to, MTU + 1, DONT_FRAGMENT);
    let from_prefix = Ip { source: super::frame::address("192.168.77.5"), ..big(R) };
    let opened = |to: Station| {
        let mut tracked = now(connection((A.v4, 1000), (to.v4, 53), 17), CtState::Opening);
        tracked.slot.error_step = step(NOW);
        tracked
    };
    vec![
        from_a("a packet too big for the tunnel is answered", a_to(R, &big(R)))
            .leaves(&[opened(R)])
            .answered(PacketTooBig, answer(R, GATEWAY, &big(R))),
        from_a("and one for a local port", a_to(B, &big(B)))
            .leaves(&[opened(B)])
            .answered(PacketTooBig, answer(B, GATEWAY, &big(B))),
        from_a("and one over ipv6", a_to(R, &datagram_v6(R, MTU + 1)))
            .leaves(&[{
                let mut tracked = now(connection((A.v6, 1000), (R.v6, 53), 17), CtState::Opening);
                tracked.slot.error_step = step(NOW);
                tracked
            }])
            .answered(PacketTooBig, answer(R, GATEWAY_V6, &datagram_v6(R, MTU + 1))),
        from_a("one from a prefix is answered by the destination", a_to(R, &from_prefix))
            .with(|memory| {
                let key = PrefixKey::new(1, addr("192.168.77.0"), 24);
                memory.behind.insert(key, Behind::local(A.mac, MTU));
            })
            .leaves(&[{
                let ends = (("192.168.77.5", 1000), (R.v4, 53));
                let mut tracked = now(connection(ends.0, ends.1, 17), CtState::Opening);
                tracked.slot.error_step = step(NOW);
                tracked
            }])
            .answered(PacketTooBig, answer(R, R.v4, &from_prefix)),
        from_a("without a gateway the destination answers", a_to(R, &big(R)))
            .with(|memory| {
                let key = AddrKey { port: A_NUMBER, addr: addr(A.v4) };
                memory
                    .addrs
                    .insert(key, Source { gateway: Addr::UNSPECIFIED_V6, mtu: MTU, domain: 0 });
            })
            .leaves(&[opened(R)])
            .answered(PacketTooBig, answer(R, R.v4, &big(R))),
    ]
}

fn refused_vectors() -> Vec<Vector> {
    use DropReason::PacketTooBig;
    let big = datagram(R, MTU + 1, DONT_FRAGMENT);
    let mut told = earlier(connection((A.v4, 1000), (R.v4, 53), 17), CtState::Established);
    told.slot.error_step = step(NOW);
    let quote = Ip::new(R.v4, A.v4, 17, udp(53, 1000)).bytes();
    let error = sized(icmp(3, 3, [0; 4], &quote), MTU + 1 - 20);
    let error = Ip { fragment: DONT_FRAGMENT, ..Ip::new(A.v4, R.v4, 1, error) };
    let known = earlier(connection((A.v4, 1000), (R.v4, 53), 17), CtState::Established);
    vec![
        from_a("a second one at once is not answered", a_to(R, &big))
            .with(|memory| memory.put_connection(told))
            .leaves(&[now(told, CtState::Established)])
            .dropped(A_NUMBER, PacketTooBig),
        from_a("an error is never answered", a_to(R, &error))
            .with(|memory| memory.put_connection(known))
            .leaves(&[{
                let mut left = known;
                left.slot.error_step = step(NOW);
                left
            }])
            .dropped(A_NUMBER, PacketTooBig),
    ]
}

/// What is cut into segments on its way.
fn segment_vectors() -> Vec<Vector> {
    let segments = |name, size| {
        let payload = sized(super::frame::tcp(1000, 80, 2), 3_000);
        let packet = Ip { fragment: DONT_FRAGMENT, ..Ip::new(A.v4, R.v4, 6, payload) };
        let vector = from_a(name, a_to(R, &packet))
            .meta(|meta| meta.gso_size = u16::try_from(size).expect("small"));
        (vector, packet)
    };
    let (fits, _) = segments("segments that fit", MTU - 40);
    let (big, packet) = segments("segments that do not", MTU - 40 + 1);
    let mut opened = now(connection((A.v4, 1000), (R.v4, 80), 6), CtState::Opening);
    opened.slot.error_step = step(NOW);
    vec![
        fits.a_reaches_r(),
        big.leaves(&[opened]).answered(DropReason::PacketTooBig, answer(R, GATEWAY, &packet)),
    ]
}

/// The step of errors at a time.
fn step(now_ns: u64) -> u16 {
    u16::try_from(now_ns >> 27 & 0x7fff | 0x8000).expect("16 bits")
}

/// What is no part of a connection.
fn stateless_vectors() -> Vec<Vector> {
    let big = datagram(R, MTU + 1, DONT_FRAGMENT);
    let stateless = |name| {
        from_a(name, a_to(R, &big)).with(|memory| {
            let rules = [Rule::accept(5).stateless()];
            memory.police(PortKey::untagged(A_IFINDEX), Direction::FromPort, &rules, false);
        })
    };
    let window = u32::try_from(NOW >> 30 & 0xffff_ffff).expect("32 bits");
    vec![
        stateless("a packet too big of no connection")
            .leaves(&[])
            .answered(DropReason::PacketTooBig, answer(R, GATEWAY, &big)),
        stateless("one too many of them")
            .with(|memory| {
                memory.floods.insert(1, Budget { window, used: FLOODS_PER_PORT });
            })
            .dropped(A_NUMBER, DropReason::PacketTooBig),
    ]
}
