"""IPv4: forged addresses, options, fragments, headers that contradict themselves."""

from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_SSRR,
    IPOption_Timestamp,
)
from scapy.packet import Raw

from world import MARK, MARKER, SINK, Case, udp

BROADCAST = "ff:ff:ff:ff:ff:ff"
# Nobody's, the gateway's, the network's own and broadcast addresses.
OF_NOBODY = ["10.0.0.77", "10.0.0.1", "10.0.0.0", "10.0.0.255", "8.8.8.8"]
# RFC 6890: addresses that are no source on a link of many.
SPECIAL = ["127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"]


def cases(w):
    return [*sources(w), *targets(w), *options(w), *headers(w), *fragments(w)]


def sources(w):
    def from_(*addresses, payload=None):
        payload = udp() if payload is None else payload
        return [w.ip(to, src=ip) / payload for ip in addresses for to in (w.near, w.far)]

    echo = ICMP(id=7) / MARK
    return [
        Case("a neighbour's IPv4 address", from_(w.near.v4, w.far.v4), drops={"spoofed_address": 4}),
        Case(
            "IPv4 addresses of nobody and of the gateway",
            from_(*OF_NOBODY),
            drops={"spoofed_address": 2 * len(OF_NOBODY)},
        ),
        Case(
            "the hosts' IPv4 addresses",
            from_(w.h1.v4, w.h2.v4, w.server),
            drops={"spoofed_address": 6},
        ),
        Case(
            "IPv4 sources that are no station's: loopback, link-local, none, groups",
            from_(*SPECIAL),
            drops={"spoofed_address": 2 * len(SPECIAL)},
        ),
        Case(
            "a land attack: from the victim to itself",
            [
                w.ip(to, src=to.v4) / TCP(sport=SINK, dport=SINK, flags="S") / MARK
                for to in (w.near, w.far)
            ],
            drops={"spoofed_address": 2},
        ),
        Case(
            "a smurf attack: echo requests to all, from the victim",
            [
                w.to(w.near, dst=BROADCAST) / IP(src=victim.v4, dst=to) / echo
                for victim in (w.near, w.far)
                for to in ("10.0.0.255", "255.255.255.255", "224.0.0.1")
            ],
            drops={"spoofed_address": 6},
        ),
        Case(
            "resets of a neighbours' connection",
            [
                w.ip(to, src=victim.v4) / TCP(sport=SINK, dport=SINK, flags=flags) / MARK
                for victim, to in ((w.near, w.far), (w.far, w.near))
                for flags in ("R", "RA", "FA", "SA")
            ],
            drops={"spoofed_address": 8},
        ),
    ]


def targets(w):
    special = ["127.0.0.1", "127.1.2.3", "169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1"]
    own = [w.evil.v4, "10.0.0.77", w.far.v4, w.h1.v4, w.h2.v4, w.server]
    elsewhere = [*special, "10.0.0.77", w.near.v4, w.h1.v4, w.h2.v4, w.server]
    return [
        Case(
            "to a neighbour's MAC, at addresses that are not its own",
            [w.ip(w.near, dst=ip) / udp() for ip in own],
            drops={"foreign_destination": len(own)},
        ),
        Case(
            "to a neighbour's MAC, at loopback, link-local and group addresses",
            [w.ip(w.near, dst=ip) / udp() for ip in special],
            drops={"foreign_destination": len(special)},
        ),
        Case(
            "the same to a neighbour on another host",
            [w.ip(w.far, dst=ip) / udp() for ip in elsewhere],
            far_drops={"foreign_destination": len(elsewhere)},
        ),
        # The host has no word in what its guests do with them: Linux' guests take none.
        Case(
            "echo requests to all, from the own address",
            [w.to(w.near, dst=BROADCAST) / IP(src=w.evil.v4, dst="10.0.0.255") / ICMP(id=7) / MARK],
            near=1,
            far=1,
            underlay=1,
        ),
        # So may be what is for one of them: it is no part of a connection.
        Case(
            "to a neighbour's address by everybody's MAC",
            [w.to(w.near, dst=BROADCAST) / IP(src=w.evil.v4, dst=w.near.v4) / udp()],
            near=1,
            far=1,
        ),
        Case(
            "to the hosts' addresses by everybody's MAC: all of the network hear it, no host",
            [
                w.to(w.near, dst=BROADCAST) / IP(src=w.evil.v4, dst=ip) / udp(dport=port)
                for ip in (w.h1.v4, w.h2.v4, w.server, "127.0.0.1")
                for port in (w.vxlan_port, w.link_port, w.rest_port)
            ],
            near=12,
            far=12,
        ),
    ]


def options(w):
    """They pass: what a guest does with them is its own affair. The addresses are guarded, and nothing of
    an option decides where a packet goes."""

    def with_options(*options, to=None):
        return [w.ip(to or w.near, options=[option]) / udp() for option in options]

    malformed = [b"\x07\x00\x04\x00", b"\x83\xff\x04\x00", b"\x83\x03\x40\x00", b"\x44\x28\x05\x00"]
    return [
        Case(
            "loose source routing",
            with_options(IPOption_LSRR(routers=[w.far.v4, w.h1.v4, "8.8.8.8"])),
            near=1,
        ),
        Case(
            "strict source routing",
            with_options(IPOption_SSRR(routers=[w.near.v4, w.h2.v4]), to=w.far),
            far=1,
        ),
        Case(
            "source routing by a neighbour's MAC to a third one",
            [
                w.ip(w.near, dst=w.far.v4, options=[kind(routers=[w.h1.v4])]) / udp()
                for kind in (IPOption_LSRR, IPOption_SSRR)
            ],
            drops={"foreign_destination": 2},
        ),
        Case(
            "source routing from another's address",
            [
                w.ip(w.near, src=w.far.v4, options=[kind(routers=[w.evil.v4])]) / udp()
                for kind in (IPOption_LSRR, IPOption_SSRR)
            ],
            drops={"spoofed_address": 2},
        ),
        Case(
            "record route, timestamps, router alert, no operation",
            with_options(
                IPOption_RR(routers=["0.0.0.0"] * 9),
                IPOption_Timestamp(),
                IPOption_Router_Alert(),
                IPOption_NOP(),
            ),
            near=4,
        ),
        Case(
            "options that contradict themselves are their receiver's to judge",
            with_options(*map(Raw, malformed)),
            near=len(malformed),
        ),
    ]


def headers(w):
    whole = bytes(w.ip(w.near) / udp())

    def changed(at, value):
        frame = bytearray(whole)
        frame[at : at + len(value)] = value
        return bytes(frame)

    ihl = [changed(14, bytes([0x40 | words])) for words in range(5)]
    beyond = [changed(14, bytes([0x40 | words])) for words in range(10, 16)]
    versions = [changed(14, bytes([version << 4 | 5])) for version in range(16) if version != 4]
    short = [changed(16, total.to_bytes(2)) for total in range(1, 28)]
    long = [changed(16, (len(whole) - 14 + more).to_bytes(2)) for more in (1, 8, 1000, 65_000)]
    return [
        Case("IPv4 cut short anywhere", [whole[:cut] for cut in range(14, 34)], drops={"malformed": 20}),
        Case("IPv4 headers of less than 20 bytes", ihl, drops={"malformed": 5}),
        Case("IPv4 headers longer than their packet", beyond, drops={"malformed": 6}),
        Case("IP versions that are none", versions, drops={"malformed": 15}),
        Case(
            "IPv6 as IPv4, and the other way round",
            [
                w.to(w.near, type=0x0800) / bytes(w.ip6(w.near) / udp())[14:],
                w.to(w.near, type=0x86DD) / whole[14:],
            ],
            drops={"malformed": 2},
        ),
        Case("IPv4 packets shorter than their headers", short, drops={"malformed": 27}),
        Case("IPv4 packets longer than their frame", long, drops={"malformed": 4}),
        Case(
            "a wrong header checksum is its receiver's to judge",
            [changed(24, bytes([whole[24] ^ 0xFF]))],
            near=1,
        ),
        Case("at the end of its life", [w.ip(w.near, ttl=ttl) / udp() for ttl in (0, 1)], near=2),
    ]


def fragments(w):
    def piece(identity, offset, payload, more=True, to=None, **fields):
        """A fragment; its offset is in units of 8 bytes."""
        fields = {"proto": 17, **fields}
        flags = "MF" if more else 0
        return w.ip(to or w.near, id=identity, frag=offset, flags=flags, **fields) / payload

    first = bytes(UDP(sport=SINK, dport=SINK, len=56, chksum=0) / MARKER / bytes(16))
    tcp = bytes(TCP(sport=SINK, dport=SINK, flags="S") / MARKER / bytes(20))
    echo = bytes(ICMP(id=7) / MARKER / bytes(16))
    alone = [piece(30, offset, MARKER * 2) for offset in (1, 2, 100, 8191)]
    far_alone = [piece(30, offset, MARKER * 2, to=w.far) for offset in (1, 2, 100, 8191)]
    return [
        Case(
            "tiny fragments of TCP: no ports, ports alone, no flags (RFC 1858)",
            [piece(31 + words, 0, tcp[: 4 * words], proto=6) for words in range(5)],
            drops={"malformed": 5},
        ),
        Case(
            "a fragment that overwrites the flags of TCP (RFC 3128)",
            [piece(40, 1, MARKER * 3, proto=6), piece(40, 1, MARKER * 3, more=False, proto=6)],
            drops={"fragment_overlap": 2},
        ),
        Case(
            "a TCP header in three fragments",
            [
                piece(41, 0, tcp[:8], proto=6),
                piece(41, 1, tcp[8:16], proto=6),
                piece(41, 2, tcp[16:], more=False, proto=6),
            ],
            drops={"malformed": 1, "fragment_overlap": 1, "fragment_alone": 1},
        ),
        Case(
            "tiny fragments of UDP and ICMP",
            [
                *(piece(42, 0, first[:cut]) for cut in range(8)),
                *(piece(43, 0, echo[:cut], proto=1) for cut in range(8)),
            ],
            drops={"malformed": 16},
        ),
        Case("later fragments without a first one", alone, drops={"fragment_alone": 4}),
        Case("the same to another host", far_alone, drops={"fragment_alone": 4}),
        Case(
            "a later fragment before its first one",
            [piece(44, 4, MARKER * 3, more=False), piece(44, 0, first)],
            drops={"fragment_alone": 1},
            near=1,
        ),
        Case(
            "a later fragment of a first one that went to another neighbour",
            [piece(45, 0, first), piece(45, 4, MARKER * 3, more=False, to=w.far)],
            drops={"fragment_alone": 1},
            near=1,
        ),
        # Whoever puts them together has to bear it, as of each neighbour on a wire.
        Case(
            "fragments that overlap (teardrop)",
            [piece(46, 0, first), piece(46, 3, MARKER * 3, more=False)],
            near=2,
        ),
        Case(
            "fragments that are more than a packet may be (ping of death)",
            [piece(47, 0, echo, proto=1), piece(47, 8189, MARKER * 5, more=False, proto=1)],
            near=2,
        ),
        Case(
            "first fragments that nothing follows",
            [piece(1000 + at, 0, first) for at in range(300)],
            near=300,
        ),
        Case(
            "fragments from another's address",
            [
                piece(48, 0, first, src=w.far.v4),
                piece(48, 4, MARKER * 3, more=False, src=w.far.v4),
            ],
            drops={"spoofed_address": 2},
        ),
    ]
