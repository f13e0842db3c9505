#!/usr/bin/env python3
"""A switch for Ethernet frames that loses some and takes its time with the rest: what netem does, for kernels without it.

    tests/slow_switch.py [--loss 0.05] [--delay 0.1] [--seed 1] PORT PORT...

Each PORT is a TAP device, which it makes in the network namespace it runs in; whoever started it connects the other end (the port is
usually put into a bridge together with one cable). It says "ready" when the devices are there. Of the frames that come in at a port a
share is lost, each independently; the others leave `delay` seconds later, in order, where their destination was last seen, or
everywhere when nobody knows. Frames of both directions of a conversation pass once each, so that a round trip takes twice the delay.
At SIGTERM it says how many frames it carried and lost, and ends.

Needs /dev/net/tun. The kernel cuts large packets up and fills in checksums before they come here, because no offload is asked for.
"""

import argparse
import collections
import fcntl
import os
import random
import select
import signal
import struct
import time

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAME_BYTES_MAX = 65536
# What is under way at most; a real line has no endless memory either.
UNDER_WAY_MAX = 50_000


def tap(name):
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22s", name.encode(), IFF_TAP | IFF_NO_PI, b""))
    return port


class Switch:
    def __init__(self, ports, loss, delay, seed):
        self.ports = ports
        self.loss = loss
        self.delay = delay
        # Each direction has draws of its own: what one port hears does not move the luck of another.
        self.luck = {port: random.Random(f"{seed}/{number}") for number, port in enumerate(ports)}
        self.seen_at = {}
        self.under_way = collections.deque()
        self.carried = self.lost = 0

    def take(self, port, now):
        """Reads what has come in at a port."""
        while True:
            try:
                frame = os.read(port, FRAME_BYTES_MAX)
            except OSError:
                # Nothing more is there, or the device is down.
                return
            if len(frame) < 14:
                continue
            if self.luck[port].random() < self.loss or len(self.under_way) >= UNDER_WAY_MAX:
                self.lost += 1
                continue
            self.seen_at[frame[6:12]] = port
            self.under_way.append((now + self.delay, port, frame))

    def give(self, now):
        """Lets go what has been under way for long enough."""
        while self.under_way and self.under_way[0][0] <= now:
            _, came_from, frame = self.under_way.popleft()
            at = self.seen_at.get(frame[0:6])
            for port in self.ports if at is None else [at]:
                if port == came_from:
                    continue
                try:
                    os.write(port, frame)
                except OSError:
                    # It is down, or its queue is full: as with a cable, nobody is told.
                    self.lost += 1
            self.carried += 1

    def run(self, ended):
        poll = select.poll()
        for port in self.ports:
            poll.register(port, select.POLLIN)
        while not ended():
            now = time.monotonic()
            self.give(now)
            wait = max(0.0, self.under_way[0][0] - now) if self.under_way else 1.0
            # Rounded up, because less than a millisecond would be none, and that a loop without rest.
            for port, events in poll.poll(int(min(wait, 1.0) * 1000) + 1):
                if events & select.POLLIN:
                    self.take(port, time.monotonic())
                else:
                    # A device that is not up yet says so at once and without end.
                    time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser(description="A switch that loses frames and takes its time with the rest.")
    parser.add_argument("--loss", type=float, default=0.05, help="share of the frames that are lost")
    parser.add_argument("--delay", type=float, default=0.1, help="seconds a frame takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("ports", nargs="+", metavar="PORT")
    asked = parser.parse_args()
    signals = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: signals.append(caught))
    switch = Switch([tap(name) for name in asked.ports], asked.loss, asked.delay, asked.seed)
    print("ready", flush=True)
    switch.run(lambda: signals)
    print(f"{switch.carried} frames carried, {switch.lost} lost", flush=True)


if __name__ == "__main__":
    main()
