"""Sends attacks, one case after the other, as it is told on its standard input.

The first line is the world: who is there, as JSON. The answer is the table of cases: for each its name
and what must become of its frames. Then each line names a case by its number, and whether it is to be
sent: a table that is content with an attacker who does nothing proves nothing. The answer comes once all
that was sent has been dealt with.

Runs as root in any network namespace. Ends with its standard input.
"""

import json
import os
import sys

import floods
import ipv4
import ipv6
import link
import neighbours
import transport
import tunnels
import wired
from wire import Wire
from world import World

TOPICS = (link, neighbours, ipv4, ipv6, transport, tunnels, wired, floods)


def main() -> None:
    # On one CPU the kernel keeps frames in their order: what was sent before an answered echo
    # request has been dealt with.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    world = World(json.loads(sys.stdin.readline()))
    cases = [case for topic in TOPICS for case in topic.cases(world)]
    wires = {name: Wire(world, sender) for name, sender in world.senders.items()}
    for wire in wires.values():
        wire.fence()
    print(json.dumps([case.shown() for case in cases]), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        case = cases[order["case"]]
        wire = wires[case.sender]
        refused = case.send(wire) if order["sends"] else 0
        wire.fence()
        print(json.dumps({"refused": refused}), flush=True)


main()
