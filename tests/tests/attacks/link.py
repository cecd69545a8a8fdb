"""Below IP: MACs, tags, and what is neither ARP nor IP."""

from scapy.layers.l2 import LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.inet import IP, UDP

from world import MARK, MARKER, Case, udp

# Nobody has it.
INVENTED = "fa:4c:09:09:09:09"
# netloom's own, `SERVICE_MAC` of crates/packet/src/sizes.rs.
SERVICE = "02:6e:65:74:6c:6d"
# LLDP, PPPoE, MPLS, EAPOL, MACsec, PTP, loopback, IPX, FCoE, ERSPAN, HSR, an experiment, none.
OTHER_TYPES = [
    0x88CC, 0x8863, 0x8864, 0x8847, 0x8848, 0x888E, 0x88E5, 0x88F7, 0x9000, 0x8137, 0x8906, 0x88BE,
    0x892F, 0x88B5, 0xFFFF,
]  # fmt: skip


def cases(w):
    return [*macs(w), *tags(w), *other_types(w), *lengths(w)]


def macs(w):
    def sources(*macs):
        ip = IP(src=w.evil.v4, dst=w.near.v4) / udp()
        far = IP(src=w.evil.v4, dst=w.far.v4) / udp()
        return [
            Ether(src=mac, dst=to.mac) / packet
            for mac in macs
            for to, packet in ((w.near, ip), (w.far, far))
        ]

    nobody = IP(src=w.evil.v4, dst="10.0.0.77") / udp()
    return [
        Case("an honest datagram", [w.ip(w.near) / udp(), w.ip(w.far) / udp()], near=1, far=1),
        Case("a neighbour's MAC", sources(w.near.mac, w.far.mac), drops={"spoofed_mac": 4}),
        Case("an invented MAC", sources(INVENTED), drops={"spoofed_mac": 2}),
        Case("a MAC of zeros", sources("00:00:00:00:00:00"), drops={"spoofed_mac": 2}),
        Case(
            "a group's MAC as source",
            sources("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"),
            drops={"spoofed_mac": 6},
        ),
        Case(
            "the hosts' own MACs as source",
            sources(w.h1.mac, w.h2.mac, w.h1.port_mac),
            drops={"spoofed_mac": 6},
        ),
        Case("netloom's MAC as source", sources(SERVICE), drops={"spoofed_mac": 2}),
        Case("another tenant's MAC as source", sources(w.other_near.mac), drops={"spoofed_mac": 2}),
        Case(
            "to another tenant's MAC",
            [w.to(w.other_near) / nobody, w.to(w.other_far) / nobody],
            drops={"unknown_destination": 2},
        ),
        Case(
            "to another tenant's MAC, at an address that the own tenant has too",
            [w.to(w.other_near) / IP(src=w.evil.v4, dst=w.near.v4) / udp()],
            near=1,
        ),
        Case(
            "to the hosts' MACs and netloom's",
            [
                w.to(w.near, dst=mac) / nobody
                for mac in (w.h1.mac, w.h2.mac, w.h1.port_mac, SERVICE, INVENTED)
            ],
            drops={"unknown_destination": 5},
        ),
        Case(
            "to itself",
            [w.to(w.evil) / IP(src=w.evil.v4, dst=w.evil.v4) / udp()],
            drops={"hairpin": 1},
        ),
    ]


def tags(w):
    inner = IP(src=w.evil.v4, dst=w.near.v4) / udp()

    def tagged(*tags):
        frame = w.to(w.near)
        for tag in tags:
            frame = frame / tag
        return frame / inner

    customer, service = (lambda vid: Dot1Q(vlan=vid)), (lambda vid: Dot1AD(vlan=vid))
    return [
        Case(
            "a VLAN tag",
            [tagged(customer(vid)) for vid in (1, 5, 100, 4094, 4095)],
            drops={"vlan_tagged": 5},
        ),
        Case(
            "a service VLAN tag (802.1ad)",
            [tagged(service(vid)) for vid in (0, 1, 4094)],
            drops={"vlan_tagged": 3},
        ),
        Case(
            "two VLAN tags (Q-in-Q)",
            [tagged(customer(1), customer(100)), tagged(customer(0), customer(100))],
            drops={"vlan_tagged": 2},
        ),
        Case(
            "a service and a customer VLAN tag",
            [tagged(service(1), customer(100)), tagged(customer(1), service(100))],
            drops={"vlan_tagged": 2},
        ),
        Case("three VLAN tags", [tagged(*map(customer, (1, 2, 3)))], drops={"vlan_tagged": 1}),
        Case("a priority tag", [tagged(Dot1Q(prio=7, vlan=0))], drops={"vlan_tagged": 1}),
    ]


def other_types(w):
    spanning = Dot3(src=w.evil.mac, dst="01:80:c2:00:00:00") / LLC() / STP() / MARK
    snap = Dot3(src=w.evil.mac, dst=w.near.mac) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP()
    snap = snap / IP(src=w.evil.v4, dst=w.near.v4) / udp()
    pause = w.to(w.near, dst="01:80:c2:00:00:01", type=0x8808) / bytes([0, 1, 255, 255]) / MARK
    return [
        Case("a spanning tree's root (LLC, STP)", [spanning], drops={"unknown_ethertype": 1}),
        Case("IP behind LLC and SNAP", [snap], drops={"unknown_ethertype": 1}),
        Case("a pause frame", [pause], drops={"unknown_ethertype": 1}),
        Case(
            "other ethertypes",
            [w.to(w.near, type=number) / MARK for number in OTHER_TYPES],
            drops={"unknown_ethertype": len(OTHER_TYPES)},
        ),
        Case(
            "other ethertypes to all",
            [w.to(w.near, dst="ff:ff:ff:ff:ff:ff", type=number) / MARK for number in OTHER_TYPES],
            drops={"unknown_ethertype": len(OTHER_TYPES)},
        ),
    ]


def lengths(w):
    whole = bytes(w.ip(w.near) / udp())
    room = w.near.mtu - 20 - 8 - len(MARKER)
    return [
        Case(
            "less than an Ethernet header",
            [whole[:length] for length in range(1, 14)],
            refused=13,
            answers=0,
        ),
        Case(
            "nothing behind the Ethernet header",
            [whole[:14], bytes(w.to(w.near, type=0x86DD)), bytes(w.to(w.near, type=0x0806))],
            drops={"malformed": 3},
        ),
        # The attacker has raised the MTU of its own device, not that of the host's end.
        Case(
            "jumbo frames",
            [w.ip(w.near) / udp(MARKER * 1100), w.ip6(w.near) / udp(MARKER * 1100)],
            lost=2,
        ),
        Case(
            "a byte more than the network's MTU, not to be fragmented",
            [w.ip(w.near, flags="DF") / udp(MARKER + bytes(room + 1))],
            drops={"packet_too_big": 1},
            answers=1,
        ),
        Case("as much as the network's MTU", [w.ip(w.near) / udp(MARKER + bytes(room))], near=1),
    ]
