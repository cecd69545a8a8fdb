"""A packet socket on a device, somewhere."""

import ctypes
import errno
import select
import socket
import struct
import time

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from world import BURST

CLONE_NEWNET = 0x40000000
# linux/if_packet.h: frames begin with a virtio_net_hdr.
SOL_PACKET, PACKET_VNET_HDR = 263, 15
ETH_P_ALL = 3
# In what the fence sends, and in nothing else.
FENCE = b"AFENCE.."
# The same identifier again: one connection for each target, which is established soon.
FENCE_ID = 0xFE2C
# Seconds until a fence is asked again, and how often.
PATIENCE, TRIES = 0.5, 60


def enter(namespace: str) -> None:
    with open(namespace, "rb") as target:
        # `os.setns` comes with Python 3.12.
        if ctypes.CDLL(None, use_errno=True).setns(target.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class Wire:
    def __init__(self, world, sender):
        enter(sender.namespace)
        self.socket = self._open(False)
        self.with_header = self._open(True)
        self.targets = sender.targets
        self.sender = sender
        self.number = 0

    @staticmethod
    def _open(has_header: bool) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, int(has_header))
        opened.bind(("eth0", 0 if has_header else ETH_P_ALL))
        opened.setblocking(False)
        return opened

    def send(self, frames, header: bytes) -> int:
        """Sends them, with a fence after each burst; how many the sender's own kernel refused."""
        out, refused = self.with_header if header else self.socket, 0
        for number, frame in enumerate(frames, 1):
            try:
                out.send(header + frame)
            except OSError as error:
                # Else the device had no room for it, or its other end did not take it, and counts that.
                refused += error.errno != errno.ENOBUFS
            if number % BURST == 0:
                self.fence()
        return refused

    def fence(self) -> None:
        """Returns once all that was sent before has been dealt with: each target answers an echo
        request that was sent after it."""
        for _ in range(TRIES):
            self.number += 1
            text = FENCE + struct.pack("!I", self.number)
            for mac, address in self.targets:
                request = Ether(src=self.sender.mac, dst=mac) / IP(src=self.sender.v4, dst=address)
                self.socket.send(bytes(request / ICMP(id=FENCE_ID, seq=1) / text))
            if self._hears(text):
                return
        raise SystemExit("the targets do not answer")

    def _hears(self, text: bytes) -> bool:
        waiting = {bytes.fromhex(mac.replace(":", "")) for mac, _ in self.targets}
        own = bytes.fromhex(self.sender.mac.replace(":", ""))
        until = time.monotonic() + PATIENCE
        while waiting:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return False
            frame = self.socket.recv(1 << 16)
            if frame[:6] == own and text in frame:
                waiting.discard(frame[6:12])
        return True
