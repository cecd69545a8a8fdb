//! What ports ask the agent, where it answers and where nobody does; and its answers.

use super::Vector;
use super::frame::{Ip, arp, ethernet, icmp, tcp, udp, with_icmpv6_checksum};
use super::world::{A, A_IFINDEX, A_NUMBER, B, B_NUMBER, NOW, R, addr, from_a};
use crate::{
    ASKED_PER_WINDOW, ASKED_WINDOW_BITS, Addr, AddrKey, Budget, DropReason, Entry,
    HANDED_PER_WINDOW, Mac, Net, PortKey, Question, SERVICE_MAC, Serving, Verdict,
};

/// Where metadata is, in both families.
const METADATA: &str = "169.254.169.254";
const METADATA_V6: &str = "fe80::a9fe:a9fe";
/// A DNS server that netloom is.
const RESOLVER: &str = "10.0.0.53";

pub(super) fn vectors() -> Vec<Vector> {
    let mut vectors = dhcp();
    vectors.extend(dhcp6());
    vectors.extend(requests());
    vectors.extend(own_addresses());
    vectors.extend(answers());
    vectors
}

/// With this for port A at this address.
fn serves(vector: Vector, addr: Addr, what: u32) -> Vector {
    vector.with(|memory| {
        memory.serving.insert(AddrKey { port: A_NUMBER, addr }, Serving { what });
    })
}

fn handed(vector: Vector, question: Question) -> Vector {
    vector.sent(A_NUMBER).verdict(Verdict::HandOff { port: A_NUMBER, question })
}

fn lease(vector: Vector) -> Vector {
    handed(vector, Question::Lease)
}

fn request(vector: Vector) -> Vector {
    handed(vector, Question::Request)
}

fn window(bits: u32) -> u32 {
    u32::try_from(NOW >> bits & 0xffff_ffff).expect("32 bits")
}

fn dhcp() -> Vec<Vector> {
    use DropReason as Why;
    let discover =
        |source: &str, mac| Ip::new(source, "255.255.255.255", 17, udp(68, 67)).frame(mac, A.mac);
    let answered = |name, frame| serves(from_a(name, frame), Addr::UNSPECIFIED_V6, Serving::DHCP);
    // A is the port at place 1.
    let used = |vector: Vector, window, used| {
        vector.with(|memory| {
            memory.budgets.insert(1, Budget { window, used });
        })
    };
    let now = window(30);
    let mut fragment = Ip::new("0.0.0.0", "255.255.255.255", 17, udp(68, 67));
    fragment.fragment = 0x2000;
    let first = || discover("0.0.0.0", Mac::BROADCAST);
    let relayed = |server: &str| Ip::new(A.v4, server, 17, udp(67, 67)).frame(B.mac, A.mac);
    vec![
        lease(answered("a dhcp request is for the agent", first())),
        lease(answered("a lease is renewed with the agent", discover(A.v4, Mac::BROADCAST))),
        lease(answered("a lease is renewed with the agent, by unicast", discover(A.v4, B.mac))),
        lease(answered(
            "a lease that is over is renewed with the agent",
            discover(B.v4, Mac::BROADCAST),
        )),
        serves(
            from_a("a relayed request is for the agent", relayed("10.0.0.3")),
            addr("10.0.0.3"),
            Serving::RELAY,
        )
        .sent(A_NUMBER)
        .verdict(Verdict::HandOff { port: A_NUMBER, question: Question::Lease }),
        serves(
            from_a("a relayed request for another server goes there", relayed(B.v4)),
            addr("10.0.0.3"),
            Serving::RELAY,
        )
        .a_reaches_b(),
        answered("a dhcp request in fragments", fragment.frame(Mac::BROADCAST, A.mac))
            .dropped(A_NUMBER, Why::ServiceFragment),
        from_a("a dhcp request of a port that nobody answers", first())
            .with(|memory| {
                let key = AddrKey { port: B_NUMBER, addr: Addr::UNSPECIFIED_V6 };
                memory.serving.insert(key, Serving { what: Serving::DHCP });
            })
            .dropped(A_NUMBER, Why::Dhcp),
        serves(
            from_a("a dhcp request where only ipv6 is answered", first()),
            Addr::UNSPECIFIED_V6,
            Serving::IPV6,
        )
        .dropped(A_NUMBER, Why::Dhcp),
        from_a("a renewal where nobody answers dhcp", discover(A.v4, Mac::BROADCAST))
            .sent(A_NUMBER)
            .verdict(Verdict::Flood { net: 1, sender: A_NUMBER }),
        lease(answered("a dhcp request is for the agent in an open network, too", first())).with(
            |memory| {
                memory.nets.insert(1, Net::open());
            },
        ),
        lease(used(
            answered("the last dhcp request of a second", first()),
            now,
            HANDED_PER_WINDOW - 1,
        )),
        used(answered("a dhcp request too many", first()), now, HANDED_PER_WINDOW)
            .dropped(A_NUMBER, Why::HandOffRate),
        lease(used(answered("a dhcp request a second later", first()), now - 1, HANDED_PER_WINDOW)),
    ]
}

fn dhcp6() -> Vec<Vector> {
    use DropReason as Why;
    const GROUP: Mac = Mac([0x33, 0x33, 0, 1, 0, 2]);
    const ROUTERS: Mac = Mac([0x33, 0x33, 0, 0, 0, 2]);
    // One that the client made of no MAC (RFC 7217).
    const CHOSEN: &str = "fe80::1234:5678:9abc:def0";
    let solicit =
        |source: &str| Ip::new(source, "ff02::1:2", 17, udp(546, 547)).frame(GROUP, A.mac);
    let router = |source: &str| {
        let packet = Ip::new(source, "ff02::2", 58, icmp(133, 0, [0; 4], &[]));
        Ip { hop_limit: 255, ..packet }.frame(ROUTERS, A.mac)
    };
    let answered = |name, frame| serves(from_a(name, frame), Addr::UNSPECIFIED_V6, Serving::IPV6);
    vec![
        lease(answered("a dhcpv6 request is for the agent", solicit("fe80::ff:fe00:a"))),
        lease(answered("a dhcpv6 request from a link-local address of any kind", solicit(CHOSEN))),
        lease(answered("a router solicitation is for the agent", router("fe80::ff:fe00:a"))),
        lease(answered("a router solicitation from nowhere is for the agent", router("::"))),
        serves(
            from_a("a router solicitation where only dhcp is answered", router("::")),
            Addr::UNSPECIFIED_V6,
            Serving::DHCP,
        )
        .dropped(A_NUMBER, Why::RouterSolicitation),
    ]
}

fn requests() -> Vec<Vector> {
    use DropReason as Why;
    let to = |source: &str, target: &str, protocol, payload| {
        Ip::new(source, target, protocol, payload).frame(R.mac, A.mac)
    };
    let get = || to(A.v4, METADATA, 6, tcp(40_000, 80, 2));
    let metadata = |name, frame| {
        serves(from_a(name, frame), addr(METADATA), Serving::METADATA | Serving::ADDRESS)
    };
    let resolver =
        |name, frame| serves(from_a(name, frame), addr(RESOLVER), Serving::DNS | Serving::ADDRESS);
    let used = |vector: Vector, window, used| {
        vector.with(|memory| {
            memory.requests.insert(1, Budget { window, used });
        })
    };
    let now = window(ASKED_WINDOW_BITS);
    let mut to_us = get();
    to_us[..6].copy_from_slice(&SERVICE_MAC.0);
    let v6 = || to("fe80::ff:fe00:a", METADATA_V6, 6, tcp(40_000, 80, 2));
    vec![
        request(metadata("metadata is asked of the agent by its address", get())),
        request(metadata("metadata is asked of the agent by its mac", to_us.clone())),
        serves(
            from_a("metadata over ipv6 is asked of the agent", v6()),
            addr(METADATA_V6),
            Serving::METADATA,
        )
        .sent(A_NUMBER)
        .verdict(Verdict::HandOff { port: A_NUMBER, question: Question::Request }),
        metadata("metadata with another's address", to(B.v4, METADATA, 6, tcp(40_000, 80, 2)))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        metadata("another port of the address of metadata is nobody's", {
            let mut frame = to(A.v4, METADATA, 6, tcp(40_000, 81, 2));
            frame[..6].copy_from_slice(&SERVICE_MAC.0);
            frame
        })
        .dropped(A_NUMBER, Why::UnknownDestination),
        from_a("metadata where nobody serves it", to_us).dropped(A_NUMBER, Why::UnknownDestination),
        request(resolver("a name is asked of the agent", to(A.v4, RESOLVER, 17, udp(5_353, 53)))),
        request(resolver(
            "a name is asked of the agent over tcp",
            to(A.v4, RESOLVER, 6, tcp(5_353, 53, 2)),
        )),
        request(used(metadata("the last request of a window", get()), now, ASKED_PER_WINDOW - 1)),
        used(metadata("a request too many", get()), now, ASKED_PER_WINDOW)
            .dropped(A_NUMBER, Why::HandOffRate),
        request(used(metadata("a request a window later", get()), now - 1, ASKED_PER_WINDOW)),
    ]
}

/// Who has netloom's own addresses, and that nothing else leaves for it.
fn own_addresses() -> Vec<Vector> {
    use DropReason as Why;
    let arp_for = |target: &str| {
        let packet = arp(1, (A.mac, A.v4), (Mac([0; 6]), target));
        ethernet(Mac::BROADCAST, A.mac, 0x0806, &packet)
    };
    let arp_reply = |target: &str| {
        ethernet(A.mac, SERVICE_MAC, 0x0806, &arp(2, (SERVICE_MAC, target), (A.mac, A.v4)))
    };
    let neighbour = solicitation("fe80::1234", METADATA_V6);
    vec![
        serves(
            from_a("arp for an address of netloom's is answered", arp_for(METADATA)),
            addr(METADATA),
            Serving::ADDRESS,
        )
        .reflected(arp_reply(METADATA)),
        serves(
            from_a(
                "arp for a station that netloom serves at is answered for the station",
                arp_for(B.v4),
            ),
            addr(B.v4),
            Serving::ADDRESS,
        )
        .reflected(ethernet(A.mac, B.mac, 0x0806, &arp(2, (B.mac, B.v4), (A.mac, A.v4)))),
        serves(
            from_a("nd for an address of netloom's is answered, whoever asks", neighbour.0),
            addr(METADATA_V6),
            Serving::ADDRESS,
        )
        .reflected(neighbour.1),
        serves(
            from_a("what else is for netloom does not go out of an uplink", {
                Ip::new(A.v4, "10.0.0.53", 17, udp(1, 2)).frame(SERVICE_MAC, A.mac)
            }),
            addr(RESOLVER),
            Serving::ADDRESS,
        )
        .with(|memory| {
            memory.nets.insert(1, Net::open().behind(PortKey::untagged(5), Mac([2; 6])));
        })
        .dropped(A_NUMBER, Why::UnknownDestination),
    ]
}

/// A neighbour solicitation of A, and netloom's answer.
fn solicitation(source: &str, target: &str) -> (Vec<u8>, Vec<u8>) {
    let group = "ff02::1:fffe:a9fe";
    let mut rest = addr(target).octets().to_vec();
    rest.extend([1, 1]);
    rest.extend(A.mac.0);
    let asked = with_icmpv6_checksum(source, group, icmp(135, 0, [0; 4], &rest));
    let to = Mac([0x33, 0x33, 0xff, 0xfe, 0xa9, 0xfe]);
    let asked = Ip { hop_limit: 255, ..Ip::new(source, group, 58, asked) }.frame(to, A.mac);
    let mut rest = addr(target).octets().to_vec();
    rest.extend([2, 1]);
    rest.extend(SERVICE_MAC.0);
    let told = with_icmpv6_checksum(target, source, icmp(136, 0, [0x60, 0, 0, 0], &rest));
    let told = Ip { hop_limit: 255, ..Ip::new(target, source, 58, told) }.frame(A.mac, SERVICE_MAC);
    (asked, told)
}

fn answers() -> Vec<Vector> {
    const MARK: u32 = 0x1234_5678;
    let to_port = |name, mark, known: u32| {
        let frame = Ip::new(METADATA, A.v4, 6, tcp(80, 40_000, 18)).frame(A.mac, SERVICE_MAC);
        let mut vector = from_a(name, frame).with(|memory| memory.answer_mark = known);
        vector.entry = Entry::ToPort;
        vector.meta(|meta| meta.mark = mark)
    };
    let host = DropReason::HostToPort;
    vec![
        to_port("an answer of the agent reaches the port", MARK, MARK)
            .received(A_NUMBER)
            .verdict(Verdict::Pass),
        to_port("an answer of an agent that is gone does not", MARK, MARK + 1)
            .dropped(A_NUMBER, host),
        to_port("without an agent nothing is an answer", 0, 0).dropped(A_NUMBER, host),
        to_port("an answer to a port that is not there", MARK, MARK)
            .meta(|meta| meta.ifindex = A_IFINDEX + 77)
            .dropped(0, host),
    ]
}
