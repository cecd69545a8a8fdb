"""Many frames, and what fills tables. The last ones leave the attacker's own table full."""

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NS, IPv6ExtHdrHopByHop, RouterAlert
from scapy.layers.l2 import ARP

from world import BURST, MARK, MARKER, SINK, Case, Least, udp

MANY = 1000
BROADCAST = "ff:ff:ff:ff:ff:ff"
# Frames that a port may have flooded in a second (`FLOODS_PER_PORT`); a case may see the end of one and
# the beginning of the next one.
FLOODS = 2 * 256


def cases(w):
    return [*guarded(w), *to_all(w), *connections(w), *explosion(w), *exhaustion(w)]


def each(frame, at, values):
    """The frame with other bytes in a place, again and again: quicker than to build each."""
    frame = bytes(frame)
    return [frame[:at] + value + frame[at + len(value) :] for value in values]


def numbers(count, width=2, first=1):
    return [number.to_bytes(width) for number in range(first, first + count)]


def guarded(w):
    scan = w.to(w.near, dst=BROADCAST) / ARP(op=1, hwsrc=w.evil.mac, psrc=w.evil.v4) / MARK
    solicit = w.ip6(w.near, dst="ff02::1", hlim=255) / ICMPv6ND_NS(tgt="fd00::7:0") / MARK
    report = w.ip6(w.near, dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    report = report / ICMPv6MLReport2() / MARK
    opens = w.ip(w.near) / TCP(sport=1000, dport=SINK, flags="S") / MARK
    resets = w.ip(w.near) / TCP(sport=1000, dport=SINK, flags="R") / MARK
    nobody = w.ip(w.near, dst="10.0.0.77") / udp()
    later = w.ip(w.near, proto=17, frag=9) / MARKER
    return [
        Case(
            "a flood of source MACs",
            each(w.ip(w.near) / udp(), 8, numbers(MANY)),
            drops={"spoofed_mac": MANY},
        ),
        Case(
            "a flood of destination MACs",
            each(nobody, 1, numbers(MANY)),
            drops={"unknown_destination": MANY},
        ),
        Case(
            "a scan of all addresses by ARP",
            each(scan, 14 + 24, [b"\x0a\x01" + number for number in numbers(MANY)]),
            drops={"unknown_neighbour": MANY},
        ),
        Case(
            "a scan by neighbour solicitations",
            each(solicit, 14 + 40 + 8 + 14, numbers(MANY)),
            drops={"unknown_neighbour": MANY},
        ),
        Case(
            "a flood of multicast listener reports",
            [bytes(report)] * MANY,
            drops={"multicast_listener": MANY},
        ),
        Case(
            "a SYN flood from forged addresses",
            each(opens, 14 + 12, [b"\x0a\x00" + number for number in numbers(MANY, first=256)]),
            drops={"spoofed_address": MANY},
        ),
        Case(
            "a flood of resets",
            each(resets, 34, numbers(MANY, first=20_000)),
            drops={"no_connection": MANY},
        ),
        Case("a flood of fragments", each(later, 18, numbers(MANY)), drops={"fragment_alone": MANY}),
    ]


def to_all(w):
    def group(mac, ip, payload):
        return w.to(w.near, dst=mac) / IP(src=w.evil.v4, dst=ip, ttl=1) / payload

    igmp = bytes.fromhex("2200f9fe0000000104000000ea010203") + MARKER
    igmp = w.to(w.near, dst="01:00:5e:00:00:16") / IP(src=w.evil.v4, dst="224.0.0.22", proto=2) / igmp
    hosts6 = w.ip6(w.near, dst="ff02::fb") / udp(dport=5353)
    hosts6["Ether"].dst = "33:33:00:00:00:fb"
    floods = {
        "broadcasts": group(BROADCAST, "10.0.0.255", udp(dport=137)),
        "IPv4 multicasts": group("01:00:5e:00:00:fb", "224.0.0.251", udp(dport=5353)),
        "IPv6 multicasts": hosts6,
        "IGMP": igmp,
    }
    return [
        Case(
            f"a flood of {name}",
            [bytes(frame)] * 2 * MANY,
            drops={"flood_rate": Least(2 * MANY - FLOODS)},
            near=Least(0),
            far=Least(0),
            copies=True,
            accounted=True,
        )
        for name, frame in floods.items()
    ]


def connections(w):
    """What is not established gives way, so all of it passes; and takes no neighbour's room."""
    opens = w.ip(w.near) / TCP(sport=1000, dport=SINK, flags="S", chksum=0) / MARK
    far = w.ip(w.far) / TCP(sport=1000, dport=SINK, flags="S", chksum=0) / MARK
    acks = w.ip(w.near) / TCP(sport=1000, dport=SINK, flags="A", chksum=0) / MARK
    datagram = w.ip(w.near) / udp(chksum=0)
    ports = numbers(4 * MANY, first=10_000)
    return [
        Case("a SYN flood", each(opens, 34, ports), near=4 * MANY),
        Case("a SYN flood to another host", each(far, 34, ports), far=4 * MANY),
        Case("a scan of all ports", each(opens, 36, ports), near=4 * MANY),
        Case("a flood of acknowledgements", each(acks, 34, ports), near=4 * MANY),
        Case("a flood of datagrams from all ports", each(datagram, 34, ports), near=4 * MANY),
    ]


def explosion(w):
    """Tuple space explosion (Csikor and others, CoNEXT 2019): each header differs from the others in
    another bit of address and ports, so that a classifier by masks needs one for each. Twice, each time
    with other ports: what it costs must not grow with what came before."""

    def flip(word, bit, bits):
        return word if bit == bits else word ^ 1 << bit

    def trace(base):
        datagram = bytes(w.ip(w.near) / udp(chksum=0))
        address = int.from_bytes(datagram[30:34])
        return [
            datagram[:30]
            + flip(address, ip, 32).to_bytes(4)
            + flip(base, source, 16).to_bytes(2)
            + flip(base, target, 16).to_bytes(2)
            + datagram[38:]
            for ip in range(33)
            for source in range(17)
            for target in range(17)
        ]

    # Those with the neighbour's own address, and all others.
    own, others = 17 * 17, 32 * 17 * 17
    return [
        Case(
            f"tuple space explosion, {part}",
            trace(base),
            drops={"foreign_destination": others},
            near=own,
        )
        for part, base in (("first half", 0xA5A5), ("second half", 0x5A5A))
    ]


def exhaustion(w):
    """Each echo request twice: answered and gone on with, a connection is established, and does not give
    way for 30 s."""
    frames = []
    for to in (w.near, w.far):
        some = echoes(w.ip(to) / ICMP(id=0, seq=1) / MARK, 3 * MANY)
        for at in range(0, len(some), BURST):
            frames += some[at : at + BURST] * 2
    return [
        Case(
            "connections until the table is full",
            frames,
            drops={"conntrack_port_budget": Least(1), "conntrack_peer_budget": Least(1)},
            far_drops={"conntrack_peer_budget": Least(1)},
            near=Least(1),
            far=Least(1),
            accounted=True,
        )
    ]


def echoes(request, count):
    """The same echo request with other identifiers, and checksums to match (RFC 1624)."""
    request = bytes(request)
    checksum = ~int.from_bytes(request[36:38]) & 0xFFFF
    found = []
    for identifier in range(1, count + 1):
        total = checksum + identifier
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        found.append(request[:36] + total.to_bytes(2) + identifier.to_bytes(2) + request[40:])
    return found
