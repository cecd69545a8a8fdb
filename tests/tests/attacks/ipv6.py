"""IPv6: forged addresses, chains of extension headers, fragments."""

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)

from world import MARKER, SINK, Case, Least, link_local, udp

OPTIONS, ROUTING, HOP_BY_HOP, FRAGMENT, NOTHING = 60, 43, 0, 44, 59


def cases(w):
    return [*sources(w), *targets(w), *headers(w), *chains(w), *fragments(w)]


def sources(w):
    def from_(*addresses):
        return [w.ip6(to, src=ip) / udp() for ip in addresses for to in (w.near, w.far)]

    mapped = ["::ffff:10.0.0.66", "::ffff:10.0.0.11"]
    special = ["::", "::1", "ff02::1", "ff0e::1", "::10.0.0.66", "2002:a00:42::1", "fec0::66", "fe80::1"]
    return [
        Case("a neighbour's IPv6 address", from_(w.near.v6, w.far.v6), drops={"spoofed_address": 4}),
        Case(
            "IPv6 addresses of nobody and of the gateway",
            from_("fd00::77", "fd00::1", "fd00::", "2001:db8::1"),
            drops={"spoofed_address": 8},
        ),
        Case(
            "IPv6 sources that are no station's: none, loopback, groups, of other times",
            from_(*special),
            drops={"spoofed_address": 2 * len(special)},
        ),
        Case("a neighbour's link-local address", from_(link_local(w.near.mac)), drops={"spoofed_address": 2}),
        # A network without router advertisements of ours has no use for it beyond discovery.
        Case("the own link-local address", from_(link_local(w.evil.mac)), drops={"link_local": 2}),
        Case("IPv4 addresses mapped into IPv6 as sources", from_(*mapped), drops={"malformed": 4}),
        Case(
            "a land attack over IPv6",
            [
                w.ip6(to, src=to.v6) / TCP(sport=SINK, dport=SINK, flags="S") / MARKER
                for to in (w.near, w.far)
            ],
            drops={"spoofed_address": 2},
        ),
    ]


def targets(w):
    elsewhere = [w.evil.v6, "fd00::77", "::1", "::", "ff02::1", link_local(w.h1.port_mac)]
    return [
        Case(
            "IPv4 addresses mapped into IPv6 as destinations",
            [w.ip6(w.near, dst=ip) / udp() for ip in ("::ffff:10.0.0.11", "::ffff:127.0.0.1")],
            drops={"malformed": 2},
        ),
        Case(
            "to a neighbour's MAC, at IPv6 addresses that are not its own",
            [w.ip6(w.near, dst=ip) / udp() for ip in elsewhere],
            drops={"foreign_destination": len(elsewhere)},
        ),
        Case(
            "the same to a neighbour on another host, over IPv6",
            [w.ip6(w.far, dst=ip) / udp() for ip in elsewhere],
            far_drops={"foreign_destination": len(elsewhere)},
        ),
        Case(
            "to the hosts' link-local addresses",
            [
                w.to(w.near, dst=mac) / w.ip6(w.near, dst=ip)["IPv6"] / udp()
                for mac, ip in ((w.h1.port_mac, w.h1.port_v6), (w.h1.mac, w.h1.v6), (w.h2.mac, w.h2.v6))
            ],
            drops={"unknown_destination": 3},
        ),
    ]


def headers(w):
    whole = bytes(w.ip6(w.near) / udp())

    def changed(at, value):
        frame = bytearray(whole)
        frame[at : at + len(value)] = value
        return bytes(frame)

    long = [changed(18, (16 + more).to_bytes(2)) for more in (1, 8, 1000, 65_000)]
    versions = [changed(14, bytes([version << 4])) for version in range(16) if version != 6]
    return [
        Case("IPv6 cut short anywhere", [whole[:cut] for cut in range(14, 54)], drops={"malformed": 40}),
        Case("IPv6 with another version", versions, drops={"malformed": 15}),
        Case("IPv6 packets longer than their frame", long, drops={"malformed": 4}),
        Case("no next header", [w.ip6(w.near, nh=NOTHING) / MARKER], near=1),
    ]


def chains(w):
    def chain(*headers, to=None, payload=None):
        packet = w.ip6(to or w.near)
        for header in headers:
            packet = packet / header
        return packet / (udp() if payload is None else payload)

    def options():
        return IPv6ExtHdrDestOpt()

    # RFC 5095 took it out of use, and is the receiver's: no station forwards for another one here,
    # as what leaves it has its own addresses.
    type_0 = IPv6ExtHdrRouting(type=0, addresses=[w.far.v6, w.near.v6, w.far.v6])
    segments = IPv6ExtHdrSegmentRouting(addresses=[w.far.v6, w.near.v6], segleft=1, lastentry=1)
    long = [chain(*(options() for _ in range(count))) for count in (5, 6, 20)]
    cut = bytes(chain(IPv6ExtHdrHopByHop(), options()))
    cuts = [cut[:18] + (length - 54).to_bytes(2) + cut[20:length] for length in range(55, 70)]
    beyond = w.ip6(w.near, nh=OPTIONS) / bytes([17, 255, 1, 4, 0, 0, 0, 0]) / udp()
    last = w.ip6(w.near, nh=OPTIONS) / bytes([17, 2, 1, 4, 0, 0, 0, 0]) / bytes(udp())[:8]
    return [
        Case(
            "hop-by-hop and destination options",
            [chain(IPv6ExtHdrHopByHop()), chain(options()), chain(IPv6ExtHdrHopByHop(), options())],
            near=3,
        ),
        # Linux says what is wrong with it, and quotes headers that are not walked.
        Case(
            "routing headers of type 0 (RFC 5095)",
            [chain(type_0), chain(type_0, to=w.far)],
            drops={"unrelated_icmp_error": Least(0)},
            far_drops={"unrelated_icmp_error": Least(0)},
            near=1,
            far=1,
            underlay=1,
        ),
        Case("segment routing", [chain(segments)], near=1),
        Case(
            "routing headers by a neighbour's MAC to a third one",
            [
                w.ip6(w.near, dst=w.far.v6) / header / udp()
                for header in (IPv6ExtHdrRouting(type=0, addresses=[w.near.v6]), segments)
            ],
            drops={"foreign_destination": 2},
        ),
        Case("four extension headers", [chain(*(options() for _ in range(4)))], near=1),
        Case("five, six and twenty extension headers", long, drops={"too_many_headers": 3}),
        Case("extension headers cut short anywhere", cuts, drops={"malformed": 15}),
        Case("extension headers longer than their packet", [beyond, last], drops={"malformed": 2}),
        Case(
            "extension headers in front of another's address",
            [w.ip6(w.near, src=w.far.v6) / IPv6ExtHdrHopByHop() / options() / udp()],
            drops={"spoofed_address": 1},
        ),
    ]


def fragments(w):
    def piece(identity, offset, payload, more=1, to=None, nh=17):
        header = IPv6ExtHdrFragment(id=identity, offset=offset, m=more, nh=nh)
        return w.ip6(to or w.near) / header / payload

    datagram = bytes(UDP(sport=SINK, dport=SINK, len=56, chksum=1) / MARKER / bytes(16))
    tcp = bytes(TCP(sport=SINK, dport=SINK, flags="S") / MARKER)
    nested = IPv6ExtHdrFragment(id=88, offset=4, m=0, nh=17)
    return [
        Case("an atomic fragment (RFC 6946)", [piece(80, 0, bytes(udp()), 0)], near=1),
        Case(
            "IPv6 fragments without a first one",
            [piece(81, offset, MARKER * 2, to=to) for offset in (1, 8191) for to in (w.near, w.far)],
            drops={"fragment_alone": 4},
        ),
        Case(
            "tiny IPv6 fragments",
            [
                *(piece(82, 0, datagram[:cut]) for cut in range(8)),
                *(piece(83, 0, tcp[:cut], nh=6) for cut in range(20)),
            ],
            drops={"malformed": 28},
        ),
        Case(
            "an IPv6 fragment that overwrites the flags of TCP",
            [piece(84, 1, MARKER * 3, nh=6)],
            drops={"fragment_overlap": 1},
        ),
        Case(
            "IPv6 fragments that overlap (RFC 5722)",
            [piece(85, 0, datagram), piece(85, 3, MARKER * 3, 0)],
            near=2,
        ),
        Case(
            "a fragment in a fragment",
            [piece(86, 0, bytes(nested) + MARKER * 2, nh=FRAGMENT)],
            drops={"fragment_alone": 1},
        ),
        Case(
            "a first fragment of headers alone (RFC 7112)",
            [piece(87, 0, bytes(IPv6ExtHdrDestOpt(nh=17)), nh=OPTIONS), piece(87, 1, datagram, 0, nh=OPTIONS)],
            drops={"malformed": 1, "fragment_alone": 1},
        ),
    ]
