"""ARP, neighbour discovery, and who plays router or DHCP server."""

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Reply
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6ND_Redirect,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLReport,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP

from world import MARK, MARKER, Case, link_local

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = {"mac": "33:33:00:00:00:01", "ip": "ff02::1"}
NOBODY_V4, NOBODY_V6 = "10.0.0.77", "fd00::77"


def cases(w):
    return [*arp(w), *solicitations(w), *advertisements(w), *routers(w), *dhcp(w)]


def arp(w):
    def says(sender, target, operation=1, to=None, **fields):
        packet = ARP(op=operation, hwsrc=w.evil.mac, psrc=sender, pdst=target)
        for name, value in fields.items():
            setattr(packet, name, value)
        return w.to(w.near, dst=to or BROADCAST) / packet / MARK

    near, far, own = w.near.v4, w.far.v4, w.evil.v4
    return [
        Case(
            "an ARP request as a neighbour",
            [says(near, far), says(near, far, to=w.far.mac), says(far, near, to=w.near.mac)],
            drops={"spoofed_arp_address": 3},
        ),
        Case(
            "an ARP reply as a neighbour",
            [says(far, near, 2, w.near.mac), says(near, far, 2, w.far.mac), says(near, far, 2)],
            drops={"spoofed_arp_address": 3},
        ),
        Case(
            "an ARP reply as the gateway",
            [says("10.0.0.1", near, 2, w.near.mac), says("10.0.0.1", far, 2, w.far.mac)],
            drops={"spoofed_arp_address": 2},
        ),
        Case(
            "gratuitous ARP for a neighbour's address",
            [says(near, near), says(near, near, 2), says(far, far), says(far, far, 2)],
            drops={"spoofed_arp_address": 4},
        ),
        Case(
            "gratuitous ARP for the own address",
            [says(own, own), says(own, own, 2)],
            drops={"gratuitous_arp": 2},
        ),
        Case(
            "an ARP probe for a neighbour's address",
            [says("0.0.0.0", near), says("0.0.0.0", far)],
            drops={"arp_probe": 2},
        ),
        Case(
            "an ARP reply that nobody has asked for",
            [says(own, near, 2, w.near.mac), says(own, far, 2, w.far.mac)],
            drops={"unsolicited_arp_reply": 2},
        ),
        Case(
            "ARP with another MAC inside",
            [says(own, far, hwsrc=w.near.mac), says(own, near, 2, w.near.mac, hwsrc=w.far.mac)],
            drops={"spoofed_arp_mac": 2},
        ),
        Case(
            "ARP of other kinds: reverse, inverse, no Ethernet, no IPv4",
            [
                *(says(own, far, operation) for operation in (0, 3, 4, 8, 9, 0xFFFF)),
                *(says(own, far, hwtype=number) for number in (0, 6, 32)),
                *(says(own, far, ptype=number) for number in (0x86DD, 0x0806)),
                says(own, far, hwlen=8),
                says(own, far, plen=16),
            ],
            drops={"malformed": 13},
        ),
        Case(
            "ARP cut short anywhere",
            [bytes(says(own, far))[:length] for length in range(14, 42)],
            drops={"malformed": 28},
        ),
        Case(
            "ARP for the hosts' addresses, the gateway's and nobody's",
            [says(own, ip) for ip in (w.h1.v4, w.h2.v4, w.server, "10.0.0.1", NOBODY_V4)],
            drops={"unknown_neighbour": 5},
        ),
        # What netloom answers names the own tenant's station, whoever else has the address.
        Case("ARP for a neighbour is answered by the host alone", [says(own, near)], answers=1),
    ]


def solicits(w, source, target, to=ALL_NODES, hop_limit=255, **fields):
    packet = w.ip6(w.near, src=source, dst=to["ip"], hlim=hop_limit)
    packet["Ether"].dst = to["mac"]
    option = ICMPv6NDOptSrcLLAddr(lladdr=w.evil.mac)
    return packet / ICMPv6ND_NS(tgt=target, **fields) / option / MARK


def solicitations(w):
    plain = solicits(w, w.evil.v6, w.near.v6)
    network = w.ip6(w.near, dst="ff02::1", hlim=255)
    network["Ether"].dst = ALL_NODES["mac"]
    unicast = w.ip6(w.near, hlim=255)
    inner = bytes(plain["ICMPv6ND_NS"])

    def fragments(start):
        return [
            start / IPv6ExtHdrFragment(id=71, offset=0, m=1, nh=58) / inner[:24],
            start / IPv6ExtHdrFragment(id=71, offset=3, m=0, nh=58) / inner[24:],
        ]

    length = len(bytes(plain)) - len(MARKER)
    return [
        Case(
            "a neighbour solicitation as a neighbour",
            [solicits(w, w.near.v6, w.far.v6), solicits(w, w.far.v6, w.near.v6)],
            drops={"spoofed_address": 2},
        ),
        Case(
            "a probe for a neighbour's IPv6 address",
            [solicits(w, "::", w.near.v6), solicits(w, "::", w.far.v6)],
            drops={"nd_probe": 2},
        ),
        Case(
            "neighbour solicitations from beyond the link",
            [solicits(w, w.evil.v6, w.near.v6, hop_limit=limit) for limit in (0, 1, 64, 254)],
            drops={"malformed": 4},
        ),
        Case(
            "a neighbour solicitation in fragments (RFC 6980)",
            fragments(unicast),
            drops={"malformed": 1, "fragment_alone": 1},
        ),
        # What is for all is no part of a connection: a later fragment is good for nothing by itself.
        Case(
            "a neighbour solicitation in fragments to all",
            fragments(network),
            drops={"malformed": 1},
            near=1,
            far=1,
        ),
        Case(
            "a neighbour solicitation behind an extension header",
            [network / kind(nh=58) / inner for kind in (IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop)],
            drops={"malformed": 2},
        ),
        Case(
            "a neighbour solicitation cut short anywhere",
            [bytes(plain)[:cut] for cut in range(14, length)],
            drops={"malformed": length - 14},
        ),
        Case(
            "neighbour solicitations for the hosts' addresses and nobody's",
            [
                solicits(w, w.evil.v6, target)
                for target in (w.h1.port_v6, w.h1.v6, w.h2.v6, NOBODY_V6, "fd00::1")
            ],
            drops={"unknown_neighbour": 5},
        ),
        Case(
            "a neighbour solicitation is answered by the host alone",
            [solicits(w, w.evil.v6, w.near.v6)],
            answers=1,
        ),
    ]


def advertises(w, source, target, station=None, extra=None, **fields):
    packet = w.ip6(station or w.near, src=source, hlim=255)
    if station is None:
        packet["Ether"].dst, packet["IPv6"].dst = ALL_NODES["mac"], ALL_NODES["ip"]
    if extra is not None:
        packet = packet / extra
    option = ICMPv6NDOptDstLLAddr(lladdr=w.evil.mac)
    fields = {"R": 0, "S": 0, "O": 1, **fields}
    return packet / ICMPv6ND_NA(tgt=target, **fields) / option / MARK


def advertisements(w):
    own_link = link_local(w.evil.mac)
    reason = "unsolicited_neighbour_advertisement"
    return [
        Case(
            "a neighbour advertisement that overrides",
            [
                advertises(w, w.near.v6, w.near.v6),
                advertises(w, w.evil.v6, w.far.v6),
                advertises(w, own_link, w.near.v6),
                advertises(w, w.evil.v6, w.evil.v6),
            ],
            drops={reason: 4},
        ),
        Case(
            "a neighbour advertisement to one that has not asked",
            [
                advertises(w, w.far.v6, w.far.v6, w.near, S=1),
                advertises(w, w.near.v6, w.near.v6, w.far, S=1, R=1),
                advertises(w, w.evil.v6, "fd00::1", w.far, S=1, R=1),
            ],
            drops={reason: 3},
        ),
        Case(
            "a neighbour advertisement behind extension headers",
            [
                advertises(w, w.near.v6, w.near.v6, w.far, IPv6ExtHdrDestOpt()),
                advertises(w, w.near.v6, w.near.v6, w.far, IPv6ExtHdrHopByHop()),
                advertises(w, w.near.v6, w.near.v6, w.far, IPv6ExtHdrFragment(id=72)),
            ],
            drops={reason: 3},
        ),
    ]


def routers(w):
    own_link = link_local(w.evil.mac)

    def router(source=own_link, station=None, extra=None, message=None, lifetime=1800):
        packet = w.ip6(station or w.near, src=source, hlim=255)
        if station is None:
            packet["Ether"].dst, packet["IPv6"].dst = ALL_NODES["mac"], ALL_NODES["ip"]
        if extra is not None:
            packet = packet / extra
        prefix = ICMPv6NDOptPrefixInfo(prefix="2001:db8:666::", prefixlen=64)
        message = message or ICMPv6ND_RA(routerlifetime=lifetime) / prefix
        return packet / message / ICMPv6NDOptSrcLLAddr(lladdr=w.evil.mac) / MARK

    redirect = ICMPv6ND_Redirect(tgt=own_link, dst=w.far.v6)
    advertisement = bytes(router()["ICMPv6ND_RA"])
    hidden = w.ip6(w.near, hlim=255)
    options = bytes(IPv6ExtHdrDestOpt(nh=58))
    # RFC 7113: a guard that looks at the first fragment alone sees no ICMPv6.
    evasion = [
        hidden / IPv6ExtHdrFragment(id=73, offset=0, m=1, nh=60) / options,
        hidden / IPv6ExtHdrFragment(id=73, offset=1, m=0, nh=60) / advertisement,
    ]
    split = [
        hidden / IPv6ExtHdrFragment(id=74, offset=0, m=1, nh=58) / advertisement[:16],
        hidden / IPv6ExtHdrFragment(id=74, offset=2, m=0, nh=58) / advertisement[16:],
    ]
    listeners = [ICMPv6MLQuery(), ICMPv6MLReport(mladdr="ff02::66"), ICMPv6MLDone()]
    alert = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return [
        Case(
            "a router advertisement",
            [router(), router(w.evil.v6), router(station=w.near), router(station=w.far)],
            drops={"rogue_router": 4},
        ),
        Case(
            "a router advertisement as another, and one that ends the gateway",
            [router(link_local(w.near.mac)), router("fe80::1", lifetime=0), router(w.far.v6)],
            drops={"rogue_router": 3},
        ),
        Case(
            "a router advertisement behind extension headers",
            [
                router(extra=IPv6ExtHdrHopByHop()),
                router(extra=IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()),
                router(extra=IPv6ExtHdrFragment(id=75)),
            ],
            drops={"rogue_router": 3},
        ),
        Case(
            "a router advertisement in fragments",
            split,
            drops={"rogue_router": 1, "fragment_alone": 1},
        ),
        Case(
            "a router advertisement that is not in the first fragment (RFC 7113)",
            evasion,
            drops={"malformed": 1, "fragment_alone": 1},
        ),
        Case(
            "an IPv6 redirect",
            [router(message=redirect), router("fe80::1", w.near, message=redirect)],
            drops={"rogue_router": 2},
        ),
        Case(
            "router solicitations, also as another",
            [router(source, message=ICMPv6ND_RS()) for source in (own_link, w.near.v6, "::")],
            drops={"router_solicitation": 3},
        ),
        Case(
            "multicast listeners' messages",
            [router(extra=alert, message=message) for message in listeners]
            + [router(w.near.v6, extra=alert, message=message) for message in listeners],
            drops={"multicast_listener": 6},
        ),
    ]


def dhcp(w):
    def served(kind, source, station=None, **fields):
        to = {"dst": station.v4} if station else {"dst": "255.255.255.255"}
        frame = w.to(station) if station else w.to(w.near, dst=BROADCAST)
        bootp = BOOTP(op=2, yiaddr=w.near.v4, siaddr=w.evil.v4, xid=7, **fields)
        options = DHCP(options=[("message-type", kind), ("router", w.evil.v4), "end"])
        return frame / IP(src=source, **to) / UDP(sport=67, dport=68) / bootp / options / MARK

    def served6(message, source):
        packet = w.ip6(w.near, src=source)
        return packet / UDP(sport=547, dport=546) / message / MARK

    discover = w.to(w.near, dst=BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255")
    discover = discover / UDP(sport=68, dport=67, chksum=0) / BOOTP(chaddr=b"client")
    discover = bytes(discover / DHCP(options=[("message-type", "discover"), "end"]) / MARK)
    discovers = [discover.replace(b"client", b"cl%04x" % at) for at in range(1000)]
    return [
        Case(
            "a DHCP server's answers",
            [
                served("offer", w.evil.v4),
                served("ack", w.evil.v4),
                served("nak", w.evil.v4),
                served("offer", w.evil.v4, w.near),
                served("ack", w.evil.v4, w.far),
            ],
            drops={"rogue_dhcp": 5},
        ),
        Case(
            "a DHCP server's answers as the gateway and as a neighbour",
            [served("offer", "10.0.0.1"), served("ack", w.near.v4, w.far)],
            drops={"spoofed_address": 2},
        ),
        Case(
            "a DHCPv6 server's answers",
            [served6(DHCP6_Advertise(), w.evil.v6), served6(DHCP6_Reply(), w.evil.v6)],
            drops={"rogue_dhcp": 2},
        ),
        Case(
            "a DHCPv6 server's answers from a link-local address",
            [served6(DHCP6_Advertise(), link_local(w.evil.mac)), served6(DHCP6_Reply(), "fe80::1")],
            drops={"link_local": 1, "spoofed_address": 1},
        ),
        # Each as another client: a pool would be empty soon.
        Case("DHCP by a thousand clients", discovers, drops={"dhcp": 1000}),
    ]
