"""Tunnels of the attacker's own, the hosts' addresses and ports, and a stranger on the underlay."""

from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit

from world import MARK, MARKER, SINK, Case, udp

# RFC 7348; the second one with a group policy (draft-smith-vxlan-group-policy).
PLAIN, GROUP_POLICY = 0x08, 0x88
BROADCAST = "ff:ff:ff:ff:ff:ff"
INVENTED = "fa:4c:09:09:09:09"


def vxlan(vni, frame, flags=PLAIN, tag=0):
    return bytes([flags, 0]) + tag.to_bytes(2) + vni.to_bytes(3) + b"\0" + bytes(frame)


def cases(w):
    return [*inside(w), *protocols(w), *hosts(w), *strangers(w), *impostors(w)]


def inside(w):
    """VXLAN and others between instances are payload like any other: no host opens them."""
    theirs = Ether(src=w.other_far.mac, dst=w.other_near.mac)
    theirs = theirs / IP(src=w.other_far.v4, dst=w.other_near.v4) / udp()
    far = Ether(src=w.other_near.mac, dst=w.other_far.mac)
    far = far / IP(src=w.other_near.v4, dst=w.other_far.v4) / udp()

    def tunnelled(to, frame, vni, **fields):
        return w.ip(to) / UDP(sport=49_999, dport=w.vxlan_port, chksum=0) / vxlan(vni, frame, **fields)

    vnis = (w.red, w.blue, 0, 0xFFFFFF)
    return [
        Case("VXLAN to a neighbour", [tunnelled(w.near, theirs, vni) for vni in vnis], near=4),
        Case("VXLAN to a neighbour on another host", [tunnelled(w.far, far, vni) for vni in vnis], far=4),
        Case(
            "VXLAN with a group policy to neighbours",
            [
                tunnelled(to, frame, w.blue, flags=GROUP_POLICY, tag=1)
                for to, frame in ((w.near, theirs), (w.far, far))
            ],
            near=1,
            far=1,
        ),
        Case(
            "VXLAN in VXLAN to a neighbour on another host",
            [tunnelled(w.far, w.ip(w.far) / UDP(dport=w.vxlan_port) / vxlan(w.blue, far), w.red)],
            far=1,
        ),
        Case(
            "Geneve to neighbours",
            [
                w.ip(to) / UDP(dport=6081, chksum=0) / GENEVE(vni=w.blue, proto=0x6558) / frame
                for to, frame in ((w.near, theirs), (w.far, far))
            ],
            near=1,
            far=1,
        ),
    ]


def protocols(w):
    """Other protocols pass, and are tracked by addresses: each guards no more than itself."""
    theirs = IP(src=w.other_near.v4, dst=w.other_far.v4) / udp()
    theirs6 = IPv6(src=w.other_near.v6, dst=w.other_far.v6) / udp()
    frame = Ether(src=w.other_near.mac, dst=w.other_far.mac) / theirs

    def to_both(payload):
        return [w.ip(to) / payload for to in (w.near, w.far)]

    numbers = [number for number in range(256) if number not in (1, 6, 17, 58)]
    sctp = SCTP(sport=SINK, dport=SINK) / SCTPChunkInit() / MARK
    return [
        Case(
            "GRE, with a key as the hosts have it",
            to_both(GRE(key_present=1, key=w.blue, proto=0x6558) / frame) + to_both(GRE() / theirs),
            near=2,
            far=2,
        ),
        Case(
            "IP in IP, and IPv6 in IP",
            to_both(theirs) + to_both(theirs6) + [w.ip6(w.near) / theirs, w.ip6(w.far) / theirs6],
            near=3,
            far=3,
        ),
        Case(
            "IPsec",
            to_both(ESP(spi=7, seq=1) / MARK) + to_both(AH(spi=7, seq=1) / udp()),
            near=2,
            far=2,
        ),
        Case("SCTP", [*to_both(sctp), w.ip6(w.near) / sctp], near=2, far=1),
        Case(
            "IGMP, OSPF and VRRP to one neighbour",
            [w.ip(w.near, proto=number) / MARKER for number in (2, 89, 112)],
            near=3,
        ),
        Case(
            "every other IP protocol",
            [w.ip(w.near, proto=number) / MARKER for number in numbers],
            near=len(numbers),
        ),
        Case(
            "other protocols from another's address",
            [w.ip(w.near, src=w.far.v4, proto=number) / MARKER for number in numbers],
            drops={"spoofed_address": len(numbers)},
        ),
    ]


def hosts(w):
    addresses = (w.h1.v4, w.h2.v4, w.server, "127.0.0.1")
    macs = (w.h1.port_mac, w.h1.mac)
    inner = Ether(src=w.near.mac, dst=w.far.mac) / IP(src=w.near.v4, dst=w.far.v4) / udp()

    def at(ip, payload):
        return [w.to(w.near, dst=mac) / IP(src=w.evil.v4, dst=ip) / payload for mac in macs]

    def of_all(payload):
        return [frame for ip in addresses for frame in at(ip, payload)]

    opens = {
        "the agents' port for their server": w.link_port,
        "the port of REST": w.rest_port,
        "a shell": 22,
    }
    tunnels = of_all(UDP(sport=5, dport=w.vxlan_port) / vxlan(w.red, inner))
    forged = [
        w.to(w.near, dst=mac)
        / IP(src=host.v4, dst=to.v4)
        / UDP(sport=5, dport=w.vxlan_port)
        / vxlan(w.red, inner)
        for mac in (*macs, w.near.mac)
        for host, to in ((w.h1, w.h2), (w.h2, w.h1))
    ]
    none = "unknown_destination"
    return [
        Case("echo requests to the hosts", of_all(ICMP(id=9) / MARK), drops={none: 8}),
        *(
            Case(f"TCP to {what}, of hosts and server", of_all(TCP(dport=port) / MARK), drops={none: 8})
            for what, port in opens.items()
        ),
        Case("VXLAN to the hosts' VTEPs", tunnels, drops={none: 8}),
        Case(
            "VXLAN to the hosts' VTEPs by a neighbour's MAC",
            [w.ip(w.near, dst=ip) / UDP(dport=w.vxlan_port) / vxlan(w.red, inner) for ip in addresses],
            drops={"foreign_destination": 4},
        ),
        Case("VXLAN as another host", forged, drops={"spoofed_address": 6}),
        Case(
            "GRE to the hosts' VTEPs",
            of_all(GRE(key_present=1, key=w.red, proto=0x6558) / inner),
            drops={none: 8},
        ),
        Case(
            "to the addresses of metadata and names, which nobody serves here",
            at("169.254.169.254", TCP(dport=80) / MARK) + at("169.254.169.254", udp(dport=53)),
            drops={none: 4},
        ),
    ]


class Underlay:
    """Frames on the underlay, to a host, by default from an address that is no host's."""

    def __init__(self, w):
        self.w = w
        red = Ether(src=w.near.mac, dst=w.far.mac) / IP(src=w.near.v4, dst=w.far.v4) / udp()
        self.red = red
        blue = Ether(src=w.other_near.mac, dst=w.other_far.mac)
        self.blue = blue / IP(src=w.other_near.v4, dst=w.other_far.v4) / udp()

    def ip(self, to, source=None, **fields):
        source = source or self.w.stranger.v4
        fields = {"src": source, "dst": to.v4, "flags": "DF", **fields}
        return Ether(src=self.w.stranger.mac, dst=to.mac) / IP(**fields)

    def vxlan(self, vni, frame, to=None, source=None, **fields):
        outer = self.ip(to or self.w.h2, source) / UDP(sport=50_000, dport=self.w.vxlan_port, chksum=0)
        return outer / vxlan(vni, frame, **fields)

    def as_h1(self, vni, frame, **fields):
        return self.vxlan(vni, frame, source=self.w.h1.v4, **fields)


def strangers(w):
    underlay = Underlay(w)
    back = Ether(src=w.far.mac, dst=w.near.mac) / IP(src=w.far.v4, dst=w.near.v4) / udp()
    vnis = (w.red, w.blue, w.red + 50, 0, 1, 0xFFFFFF)
    tags = (1, 0x8000, 0xFFFF)
    to_all = underlay.red.copy()
    to_all.dst = BROADCAST
    return [
        Case(
            "VNIs from an address that is no host's",
            [underlay.vxlan(vni, underlay.red) for vni in vnis]
            + [underlay.vxlan(vni, underlay.blue) for vni in vnis]
            + [underlay.vxlan(w.red, to_all), underlay.vxlan(w.red, back, to=w.h1)],
            drops={"unknown_vtep": 1},
            far_drops={"unknown_vtep": 13},
            sender="stranger",
        ),
        Case(
            "group policy tags from an address that is no host's",
            [underlay.vxlan(w.red, underlay.red, flags=GROUP_POLICY, tag=tag) for tag in tags]
            + [underlay.vxlan(w.blue, underlay.blue, flags=GROUP_POLICY, tag=tag) for tag in tags],
            far_drops={"unknown_vtep": 6},
            sender="stranger",
        ),
        Case(
            "VXLAN in fragments from an address that is no host's",
            [
                underlay.ip(w.h2, id=7, flags="MF", proto=17, frag=0)
                / bytes(underlay.vxlan(w.red, underlay.red)["UDP"])[:64],
                underlay.ip(w.h2, id=7, flags=0, proto=17, frag=8)
                / bytes(underlay.vxlan(w.red, underlay.red)["UDP"])[64:],
            ],
            far_drops={"unknown_vtep": 1},
            sender="stranger",
        ),
    ]


def impostors(w):
    """Nothing proves the source of an outer packet: who is on the underlay may write a host's there, and
    is believed what that host is, which is what its own stations say and no more."""
    underlay = Underlay(w)

    def inner(source, address, target=None, payload=None):
        target = target or w.far
        packet = IP(src=address, dst=target.v4) / udp() if payload is None else payload
        return Ether(src=source, dst=target.mac) / packet

    claims = ARP(op=2, hwsrc=w.near.mac, psrc=w.near.v4, hwdst=w.far.mac, pdst=w.far.v4) / MARK
    asks = ARP(op=1, hwsrc=w.near.mac, psrc=w.near.v4, pdst=w.far.v4) / MARK
    tagged = Ether(src=w.near.mac, dst=w.far.mac) / Dot1Q(vlan=5)
    tagged = tagged / IP(src=w.near.v4, dst=w.far.v4) / udp()
    ghost = inner(INVENTED, "10.0.0.77")
    whole = bytes(underlay.red)
    replayed = underlay.as_h1(w.red, underlay.red)
    replayed["Ether"].dst, replayed["IP"].dst = BROADCAST, "172.31.255.255"

    def case(name, frames, reason):
        return Case(name, frames, far_drops={reason: len(frames)}, sender="stranger")

    return [
        case(
            "as a host, for stations that it has not",
            [
                underlay.as_h1(w.red, ghost),
                underlay.as_h1(w.red, inner(INVENTED, w.near.v4)),
                underlay.as_h1(w.red, inner(w.near.mac, "10.0.0.77")),
                underlay.as_h1(w.red, inner(w.evil.mac, w.near.v4)),
                underlay.as_h1(w.red, inner(w.far.mac, w.far.v4)),
                underlay.as_h1(w.red, inner(w.h1.mac, w.h1.v4)),
            ],
            "foreign_source",
        ),
        case(
            "as a host, for a station of another network",
            [underlay.as_h1(w.blue, underlay.red), underlay.as_h1(w.red, underlay.blue)],
            "foreign_source",
        ),
        case(
            "as a host, with a group policy tag",
            [underlay.as_h1(w.red, ghost, flags=GROUP_POLICY, tag=tag) for tag in (1, 0x8000)],
            "foreign_source",
        ),
        case(
            "as a host, with VNIs of no network",
            [underlay.as_h1(vni, underlay.red) for vni in (0, 1, w.red + 50, 0xFFFFFF)],
            "unknown_vtep",
        ),
        case("as a host, to the broadcast address of the underlay", [replayed], "not_for_this_vtep"),
        case(
            "as a host, ARP",
            [
                underlay.as_h1(w.red, inner(w.near.mac, None, payload=claims)),
                underlay.as_h1(w.red, inner(w.near.mac, None, payload=asks)),
            ],
            "neighbour_from_tunnel",
        ),
        case("as a host, with a VLAN tag inside", [underlay.as_h1(w.red, tagged)], "vlan_tagged"),
        case(
            "as a host, back into the tunnel",
            [underlay.as_h1(w.red, inner(w.near.mac, w.near.v4, target=w.evil))],
            "tunnel_to_tunnel",
        ),
        case(
            "as a host, to addresses that a station has not",
            [
                underlay.as_h1(w.red, Ether(src=w.near.mac, dst=w.far.mac) / IP(src=w.near.v4, dst=ip) / udp())
                for ip in ("127.0.0.1", w.h2.v4, "10.0.0.77", "224.0.0.1")
            ],
            "foreign_destination",
        ),
        # What is shorter than an IPv4 header the kernel's tunnel device takes for no frame.
        Case(
            "as a host, frames cut short anywhere",
            [underlay.as_h1(w.red, whole[:cut]) for cut in range(14, 42)],
            far_drops={"malformed": 42 - 34},
            sender="stranger",
        ),
    ]
