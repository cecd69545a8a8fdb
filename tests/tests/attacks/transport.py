"""TCP, UDP, ICMP and ICMPv6: what opens nothing, belongs to nothing, or is cut short."""

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6PacketTooBig, IPv6

from world import MARK, MARKER, SINK, Case, Least, udp

# What only answers, ends or is nothing, in words of scapy.
OPENS_NOTHING = ["", "F", "R", "P", "U", "FPU", "SA", "SF", "SR", "FA", "RA", "SFRPAU", "SFA"]
# Source quench, redirect, router advertisement and solicitation, timestamps, information, masks, domain
# names, traceroute, and none.
NO_USE = [1, 2, 4, 5, 6, 9, 10, 13, 14, 15, 16, 17, 18, 30, 37, 38, 40, 42, 43, 255]
# Renumbering, node information, inverse discovery, home agents, SEND, ours and none.
NO_USE_6 = [0, 100, 138, 139, 140, 141, 142, 144, 145, 147, 148, 149, 151, 152, 153, 155, 200, 255]

# linux/virtio_net.h: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, little-endian.
NEEDS_CHECKSUM, TCPV4 = 1, 1


def vnet(flags=0, kind=0, length=0, size=0, start=0, offset=0):
    numbers = [(flags, 1), (kind, 1), *((number, 2) for number in (length, size, start, offset))]
    return b"".join(number.to_bytes(width, "little") for number, width in numbers)


def cases(w):
    return [*tcp(w), *icmp(w), *errors(w), *cut_short(w), *offloads(w)]


def tcp(w):
    def flags(flags, to=None, **fields):
        fields = {"sport": 1000, "dport": SINK, "flags": flags, **fields}
        return w.ip(to or w.near) / TCP(**fields) / MARK

    count = len(OPENS_NOTHING)
    whole = bytes(flags("S"))
    return [
        Case(
            "TCP flags that open nothing, such as a Christmas tree's",
            [flags(each) for each in OPENS_NOTHING],
            drops={"no_connection": count},
        ),
        Case(
            "the same to another host, and over IPv6",
            [flags(each, w.far) for each in OPENS_NOTHING]
            + [w.ip6(w.far) / TCP(sport=1000, flags=each) / MARK for each in OPENS_NOTHING],
            drops={"no_connection": 2 * count},
        ),
        Case(
            "TCP headers that contradict themselves are their receiver's to judge",
            [flags("S", dataofs=0), flags("S", dataofs=15), flags("S", chksum=1), flags("S", dport=0)],
            near=4,
        ),
        Case(
            "UDP headers that contradict themselves are their receiver's to judge",
            [w.ip(w.near) / udp(**fields) for fields in ({"len": 0}, {"len": 7}, {"len": 9999}, {"chksum": 1})],
            near=4,
        ),
        Case(
            "TCP cut short anywhere",
            [whole[:16] + (cut - 14).to_bytes(2) + whole[18:cut] for cut in range(34, 54)]
            + [whole[:cut] for cut in range(34, 54)],
            drops={"malformed": 40},
        ),
    ]


def icmp(w):
    def kind(number, **fields):
        return w.ip(w.near) / ICMP(type=number, **fields) / MARK

    def kind6(number, body=bytes(4)):
        return w.ip6(w.near, nh=58) / (bytes([number, 0, 0, 0]) + body) / MARK

    return [
        Case(
            "an echo reply that nobody has asked for",
            [
                kind(0, id=99),
                w.ip(w.far) / ICMP(type=0, id=99) / MARK,
                w.ip6(w.near) / ICMPv6EchoReply(id=99) / MARK,
            ],
            drops={"no_connection": 3},
        ),
        Case("an ICMP redirect", [kind(5, gw=w.evil.v4)], drops={"unsupported_icmp": 1}),
        Case(
            "other kinds of ICMP: quench, timestamps, masks, router discovery",
            [kind(number) for number in NO_USE],
            drops={"unsupported_icmp": len(NO_USE)},
        ),
        Case(
            "other kinds of ICMPv6: renumbering, node information, mobility",
            [kind6(number) for number in NO_USE_6],
            drops={"unsupported_icmp": len(NO_USE_6)},
        ),
        Case(
            "ICMPv6 in IPv4 and ICMP in IPv6",
            [
                w.ip(w.near, proto=58) / bytes([128, 0, 0, 0, 0, 1, 0, 1]) / MARK,
                w.ip(w.near, proto=58) / bytes([134, 0, 0, 0, 0, 1, 0, 1]) / MARK,
                w.ip6(w.near, nh=1) / ICMP(id=5) / MARK,
            ],
            drops={"unsupported_icmp": 3},
        ),
    ]


def errors(w):
    def about(quoted, kind=3, code=3, to=None, **fields):
        return w.ip(to or w.near) / ICMP(type=kind, code=code, **fields) / quoted / MARK

    theirs = IP(src=w.near.v4, dst=w.far.v4) / TCP(sport=SINK, dport=SINK, flags="A")
    others = IP(src=w.far.v4, dst=w.near.v4) / TCP(sport=SINK, dport=SINK, flags="A")
    never = IP(src=w.near.v4, dst=w.evil.v4) / UDP(sport=1, dport=1)
    theirs6 = IPv6(src=w.near.v6, dst=w.far.v6) / TCP(sport=SINK, dport=SINK, flags="A")
    too_big6 = ICMPv6PacketTooBig(mtu=68) / theirs6
    gone6 = ICMPv6DestUnreach(code=0) / theirs6
    whole = bytes(about(never))
    # Of what is quoted: all of the IP header, and the ports.
    cuts = [whole[:16] + (cut - 14).to_bytes(2) + whole[18:cut] for cut in range(42, 42 + 24)]
    live = [w.ip(w.near) / udp(sport=2000)]
    live += [about(IP(src=w.near.v4, dst=w.evil.v4) / udp(sport=SINK, dport=2000)) for _ in range(60)]
    return [
        Case(
            "ICMP errors about a neighbours' connection, such as a small MTU",
            [
                about(theirs),
                about(theirs, code=4, nexthopmtu=68),
                about(theirs, kind=11, code=0),
                about(theirs, kind=12, code=0),
                about(others, to=w.far),
                about(theirs, to=w.far),
                about(others),
            ],
            drops={"unrelated_icmp_error": 7},
        ),
        Case(
            "ICMPv6 errors about a neighbours' connection",
            [
                w.ip6(w.near) / too_big6 / MARK,
                w.ip6(w.near) / gone6 / MARK,
                w.ip6(w.far) / too_big6 / MARK,
            ],
            drops={"unrelated_icmp_error": 3},
        ),
        Case(
            "ICMP errors about connections that never were",
            [about(never), about(never, kind=11, code=1)],
            drops={"unrelated_icmp_error": 2},
        ),
        Case("ICMP errors whose quote is cut short", cuts, drops={"malformed": 24}),
        # Those that pass are of one connection, at most eight in a second.
        Case(
            "more ICMP errors about a connection than anybody needs",
            live,
            drops={"icmp_error_rate": Least(40)},
            near=Least(2),
            accounted=True,
        ),
    ]


def cut_short(w):
    def cuts(frame, start, end):
        """Both cut and saying so, and cut alone."""
        length = 16 if frame[12:14] == b"\x08\x00" else 18
        less = 14 if length == 16 else 54
        said = [
            frame[:length] + (cut - less).to_bytes(2) + frame[length + 2 : cut]
            for cut in range(start, end)
            # A payload of nothing says: as long as the frame is.
            if length == 16 or cut != 54
        ]
        return said + [frame[:cut] for cut in range(start, end)]

    v4 = {"UDP": bytes(w.ip(w.near) / udp()), "ICMP": bytes(w.ip(w.near) / ICMP(id=6) / MARK)}
    v6 = {
        "TCP": bytes(w.ip6(w.near) / TCP(sport=1000, flags="S") / MARK),
        "UDP": bytes(w.ip6(w.near) / udp()),
        "ICMPv6": bytes(w.ip6(w.near) / ICMPv6EchoReply(id=6) / MARK),
    }
    found = []
    for name, frame in v4.items():
        frames = cuts(frame, 34, 42)
        found.append(Case(f"{name} cut short anywhere", frames, drops={"malformed": len(frames)}))
    for name, frame in v6.items():
        frames = cuts(frame, 54, 74 if name == "TCP" else 62)
        name = f"{name} in IPv6 cut short anywhere"
        found.append(Case(name, frames, drops={"malformed": len(frames)}))
    return found


def offloads(w):
    """What a guest leaves to its device: where a checksum goes, and how a frame is to be cut."""
    datagram = w.ip(w.near) / udp()
    segments = w.ip(w.near, flags="DF") / TCP(sport=1001, dport=SINK, flags="A") / (MARKER + bytes(20_000))
    # Bytes behind the first place where the kernel lets a checksum start: that of the IPv4 header.
    start = 20
    places = {"protocol": 23, "source": 26, "destination": 30, "ports": 34}
    return [
        *(
            Case(
                f"a checksum that is filled in over the {what}",
                [datagram],
                drops={"checksum_misplaced": 1},
                header=vnet(NEEDS_CHECKSUM, start=start, offset=place - start),
            )
            for what, place in places.items()
        ),
        Case(
            "segments that are larger than the network's MTU",
            [segments],
            drops={"packet_too_big": 1},
            answers=1,
            header=vnet(NEEDS_CHECKSUM, TCPV4, 54, 9000, 34, 16),
        ),
    ]
