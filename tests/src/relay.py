"""Copies frames between a tap of the host and a tap of a guest, as a hypervisor does.

Usage: relay.py HOST_TAP GUEST_NAMESPACE GUEST_TAP [VLAN]

With a VLAN it is a switch's access port: what the guest sends gets that IEEE 802.1Q tag on the side
of the host, and only what has the tag reaches the guest, without it.

Runs in the host's network namespace. Both taps are made by it, and gone with it. Says "ready" once
they are there, and ends when its input does.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys

# linux/if_tun.h
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
TUNSETOFFLOAD, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x400454D0, 1, 2, 4
CLONE_NEWNET = 0x40000000
FRAME_MAX = (1 << 16) + 64


def tap(name: str, offloads: bool) -> int:
    """With offloads, each frame has a virtio_net_hdr before it: checksums and segments that are to
    be made go from tap to tap as they are, as between a guest's virtio device and a tap."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if offloads else 0)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    if offloads:
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return fd


def tag(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:]


def untag(frame: bytes, vlan: int) -> bytes | None:
    ethertype, control = struct.unpack("!HH", frame[12:16])
    if ethertype != 0x8100 or control & 0xFFF != vlan:
        return None
    return frame[:12] + frame[16:]


def copy(source: int, target: int, change=lambda frame: frame) -> None:
    while True:
        try:
            frame = os.read(source, FRAME_MAX)
        except BlockingIOError:
            return
        except OSError:
            # It is down.
            return
        frame = change(frame)
        if frame is None:
            continue
        try:
            os.write(target, frame)
        except OSError:
            # The other one is down: a wire that nobody listens to.
            pass


def main() -> None:
    host_tap, namespace, guest_tap = sys.argv[1:4]
    inward = outward = lambda frame: frame
    if len(sys.argv) > 4:
        vlan = int(sys.argv[4])
        inward = lambda frame: untag(frame, vlan)
        outward = lambda frame: tag(frame, vlan)
    # A switch's port gets whole frames.
    offloads = len(sys.argv) == 4
    host = tap(host_tap, offloads)
    with open(namespace, "rb") as target:
        # `os.setns` comes with Python 3.12.
        if ctypes.CDLL(None, use_errno=True).setns(target.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    guest = tap(guest_tap, offloads)
    print("ready", flush=True)
    poll = select.poll()
    for fd in (host, guest, sys.stdin.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == host:
                copy(host, guest, inward)
            elif fd == guest:
                copy(guest, host, outward)
            else:
                return


main()
