"""The same in a physical network, a VLAN on the hosts' only wire: there others answer, and whatever is for
nobody here leaves for the wire."""

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6ND_Redirect,
    ICMPv6MLReport,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tunnels import vxlan
from world import MARK, Case, link_local, udp

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES = "33:33:00:00:00:01"
# A machine that netloom does not manage, and the gateway.
MACHINE, GATEWAY = "10.8.0.201", "10.8.0.1"


def cases(w):
    # The attacker is another one, with other neighbours.
    wired = w.of(w.wired, w.wired_near, w.wired_far)
    found = [*arp(wired), *discovery(wired), *frames(wired)]
    for case in found:
        case.sender = "wired"
    return [*found, *machines(wired)]


def arp(w):
    def says(sender, target, operation=1, to=BROADCAST, mac=None):
        packet = ARP(op=operation, hwsrc=mac or w.evil.mac, psrc=sender, pdst=target)
        return w.to(w.near, dst=to) / packet / MARK

    near, far, own = w.near.v4, w.far.v4, w.evil.v4
    others = (near, far, MACHINE, GATEWAY, w.h1.v4)
    return [
        Case(
            "on a wire: ARP requests as another",
            [says(other, own) for other in others],
            drops={"spoofed_arp_address": 5},
        ),
        Case(
            "on a wire: ARP replies as another",
            [says(other, near, 2, w.near.mac) for other in others],
            drops={"spoofed_arp_address": 5},
        ),
        Case(
            "on a wire: gratuitous ARP as another",
            [says(other, other, operation) for other in others for operation in (1, 2)],
            drops={"spoofed_arp_address": 10},
        ),
        Case(
            "on a wire: ARP probes for another's address",
            [says("0.0.0.0", other) for other in others],
            drops={"spoofed_arp_address": 5},
        ),
        Case(
            "on a wire: ARP with another's MAC inside",
            [says(own, far, mac=w.near.mac), says(own, far, 2, w.far.mac, w.h1.mac)],
            drops={"spoofed_arp_mac": 2},
        ),
    ]


def discovery(w):
    own_link = link_local(w.evil.mac)

    def says(message, source):
        packet = w.ip6(w.near, src=source, dst="ff02::1", hlim=255)
        packet["Ether"].dst = ALL_NODES
        return packet / message / MARK

    def claims(target, source):
        return says(ICMPv6ND_NA(R=0, S=0, O=1, tgt=target) / ICMPv6NDOptDstLLAddr(lladdr=w.evil.mac), source)

    asks = ICMPv6ND_NS(tgt=w.far.v6) / ICMPv6NDOptSrcLLAddr(lladdr=w.evil.mac)
    redirect = ICMPv6ND_Redirect(tgt=own_link, dst=w.far.v6)
    bootp = UDP(sport=67, dport=68) / BOOTP(op=2, yiaddr=w.near.v4, siaddr=w.evil.v4)
    offer = bootp / DHCP(options=[("message-type", "offer"), ("router", w.evil.v4), "end"]) / MARK
    to_all = w.to(w.near, dst=BROADCAST)
    advertise = UDP(sport=547, dport=546) / DHCP6_Advertise() / MARK
    return [
        Case(
            "on a wire: neighbour advertisements as another",
            [claims(w.near.v6, source) for source in (w.near.v6, w.evil.v6, own_link)],
            drops={"spoofed_address": 3},
        ),
        Case(
            "on a wire: neighbour solicitations as another",
            [says(asks, source) for source in (w.near.v6, link_local(w.near.mac), "fe80::1")],
            drops={"spoofed_address": 3},
        ),
        Case(
            "on a wire: probes for another's IPv6 address",
            [says(ICMPv6ND_NS(tgt=other), "::") for other in (w.near.v6, w.far.v6, "fd08::201")],
            drops={"nd_probe": 3},
        ),
        Case(
            "on a wire: router advertisements and redirects",
            [says(message, source) for message in (ICMPv6ND_RA(), redirect) for source in (own_link, "fe80::1")],
            drops={"rogue_router": 4},
        ),
        Case(
            "on a wire: router solicitations and listeners' reports as another",
            [says(message, w.near.v6) for message in (ICMPv6ND_RS(), ICMPv6MLReport(mladdr="ff02::66"))],
            drops={"spoofed_address": 2},
        ),
        Case(
            "on a wire: answers of DHCP and DHCPv6",
            [
                to_all / IP(src=w.evil.v4, dst="255.255.255.255") / offer,
                w.ip(w.near) / offer,
                w.ip6(w.near) / advertise,
                w.ip6(w.near, src=own_link) / advertise,
            ],
            drops={"rogue_dhcp": 4},
        ),
    ]


def frames(w):
    packet = IP(src=w.evil.v4, dst=w.near.v4) / udp()
    inner = Ether(src=w.near.mac, dst=w.far.mac) / IP(src=w.near.v4, dst=w.far.v4) / udp()
    through = UDP(sport=5, dport=w.vxlan_port, chksum=0) / vxlan(w.red, inner)
    sources = (w.near.v4, w.far.v4, MACHINE, GATEWAY, w.h1.v4, w.server, "127.0.0.1", "0.0.0.0")
    return [
        Case(
            "on a wire: MACs of others and of the hosts",
            [Ether(src=mac, dst=w.near.mac) / packet for mac in (w.near.mac, w.far.mac, w.h1.mac, w.h2.mac)],
            drops={"spoofed_mac": 4},
        ),
        Case(
            "on a wire: addresses of others and of the hosts",
            [w.ip(to, src=source) / udp() for source in sources for to in (w.near, w.far)],
            drops={"spoofed_address": 2 * len(sources)},
        ),
        Case(
            "on a wire: tags of the own VLAN, of others and of two at once",
            [w.to(w.far) / Dot1Q(vlan=vlan) / packet for vlan in (1, w.vlan, w.vlan + 1)]
            + [w.to(w.far) / Dot1Q(vlan=w.vlan) / Dot1Q(vlan=w.vlan + 1) / packet],
            drops={"vlan_tagged": 4},
        ),
        Case(
            "on a wire: VXLAN as another host",
            [w.to(w.h2) / IP(src=w.h1.v4, dst=w.h2.v4) / through],
            drops={"spoofed_address": 1},
        ),
        # It leaves as a packet for any machine there, in the VLAN: no host takes it for its underlay.
        Case(
            "on a wire: VXLAN to another host's VTEP, in the VLAN",
            [w.to(w.h2) / IP(src=w.evil.v4, dst=w.h2.v4) / through],
            underlay=1,
        ),
    ]


def machines(w):
    """A machine on the wire plays an instance to another one of the same host."""

    def tagged(source):
        return Ether(src=source, dst=w.wired_near.mac) / Dot1Q(vlan=w.vlan)

    own, victim, played = w.stranger.mac, w.wired_near, w.wired
    claim = ARP(op=2, hwsrc=own, psrc=played.v4, hwdst=victim.mac, pdst=victim.v4) / MARK
    return [
        Case(
            "a machine on the wire with the MAC or an address of an instance",
            [
                tagged(played.mac) / IP(src=played.v4, dst=victim.v4) / udp(),
                tagged(played.mac) / IP(src=MACHINE, dst=victim.v4) / udp(),
                tagged(own) / IP(src=played.v4, dst=victim.v4) / udp(),
                tagged(own) / IPv6(src=played.v6, dst=victim.v6) / udp(),
                tagged(own) / claim,
            ],
            drops={"foreign_source": 5},
            sender="stranger",
        )
    ]
