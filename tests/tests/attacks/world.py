"""Who is there, what a case is, and the headers that most frames begin with."""

from copy import copy
from dataclasses import dataclass, field
from types import SimpleNamespace

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

# In the payload of what is sent: it must be heard nowhere but where a case says.
MARKER = b"ATTACK!!"
# So many frames are sent before it is waited until they have been dealt with: fewer than a CPU's backlog
# has room for (net.core.netdev_max_backlog, 1,000).
BURST = 128
# Somebody listens here at the neighbours, and says nothing.
SINK = 4000
MARK = Raw(MARKER)


@dataclass
class Least:
    """So many or more."""

    count: int


def shown(count):
    return {"atLeast": count.count} if isinstance(count, Least) else count


@dataclass
class Case:
    """What is sent, and what must become of it."""

    name: str
    # Scapy's packets, or bytes.
    frames: list
    # How often each reason is counted on the sender's host, and on the other one.
    drops: dict = field(default_factory=dict)
    far_drops: dict = field(default_factory=dict)
    # How many frames of it arrive at the neighbours.
    near: object = 0
    far: object = 0
    # How many leave the host; if nothing is said, those that arrive or are dropped on the other one.
    underlay: object = None
    # How many frames come back; `None`: as many as may be.
    answers: object = None
    # How many the sender's own kernel does not send, and how many the host's kernel does not take.
    refused: int = 0
    lost: int = 0
    # Each frame is either counted as dropped or arrives: at one neighbour, or, with copies, at each.
    accounted: bool = False
    copies: bool = False
    sender: str = "evil"
    # A virtio_net_hdr in front of each frame.
    header: bytes = b""

    def __post_init__(self):
        self.frames = [bytes(frame) for frame in self.frames]
        if self.underlay is None:
            counts = [self.far, *self.far_drops.values()]
            self.underlay = 0
            if self.sender == "evil":
                exact = all(isinstance(count, int) for count in counts)
                self.underlay = sum(counts) if exact else Least(0)
        if self.answers is None and not self.near and not self.far and not self.far_drops:
            self.answers = 0

    def send(self, wire) -> int:
        return wire.send(self.frames, self.header)

    def shown(self) -> dict:
        counts = {reason: shown(count) for reason, count in self.drops.items()}
        far_counts = {reason: shown(count) for reason, count in self.far_drops.items()}
        return {
            "name": self.name,
            "frames": len(self.frames),
            "drops": [counts, far_counts],
            "arrives": {"near": shown(self.near), "far": shown(self.far)},
            "underlay": shown(self.underlay),
            "answers": shown(self.answers),
            "refused": self.refused,
            "lost": self.lost,
            "accounted": self.accounted,
            "copies": self.copies,
            "sender": self.sender,
        }


class World:
    """The names of the topology, and a stranger on the underlay. Addresses are text."""

    def __init__(self, told: dict):
        for name, what in told.items():
            setattr(self, name, SimpleNamespace(**what) if isinstance(what, dict) else what)
        neighbours = [(self.near.mac, self.near.v4), (self.far.mac, self.far.v4)]
        self.evil.targets = neighbours
        beside = [(self.wired_near.mac, self.wired_near.v4), (self.wired_far.mac, self.wired_far.v4)]
        self.wired.targets = beside
        self.stranger.targets = [(host.mac, host.v4) for host in (self.h1, self.h2)]
        self.senders = {"evil": self.evil, "wired": self.wired, "stranger": self.stranger}

    def of(self, evil, near, far):
        """The same world as another attacker sees it."""
        other = copy(self)
        other.evil, other.near, other.far = evil, near, far
        return other

    def to(self, station, **fields):
        """An Ethernet header from the attacker."""
        return Ether(**{"src": self.evil.mac, "dst": station.mac, **fields})

    def ip(self, station, **fields):
        """The same, and an IPv4 header; fields are of that."""
        return self.to(station) / IP(**{"src": self.evil.v4, "dst": station.v4, **fields})

    def ip6(self, station, **fields):
        """The same with IPv6."""
        return self.to(station) / IPv6(**{"src": self.evil.v6, "dst": station.v6, **fields})


def udp(payload=MARK, **fields):
    """A UDP datagram that nobody answers."""
    return UDP(**{"sport": SINK, "dport": SINK, **fields}) / payload


def link_local(mac: str) -> str:
    """RFC 4291, appendix A."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    words = [octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]
    pairs = [f"{words[at] << 8 | words[at + 1]:x}" for at in range(0, 8, 2)]
    return "fe80::" + ":".join(pairs)
