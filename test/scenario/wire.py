"""Reads a capture of a link (pcap, Ethernet): which TCP connections it saw, and whether their bytes are TLS.

    seen = Capture(open("links.pcap", "rb").read())
    seen.hellos                   # {("10.77.0.9", "10.77.0.1"): 3}: TLS 1.3 ServerHellos, by who called whom
    seen.foreign()                # what is on the links and is not a TLS 1.3 record, in words; empty when all is

Only streams whose SYN was seen are walked, record by record, to their first gap; `walked` says how many bytes that were.
"""

import collections
import socket
import struct

ALERT, HANDSHAKE, DATA, CIPHER = 21, 22, 23, 20


class Capture:
    def __init__(self, pcap):
        self.raw = pcap
        self.hellos = collections.Counter()
        self.walked = 0
        self._faults = []
        self._streams = {}  # (source, port, destination, port) -> [sequence of the first byte, [(sequence, bytes)]]
        for frame in _frames(pcap):
            self._take(frame)
        for key, (first, parts) in self._streams.items():
            self._walk(key, _join(first, parts))

    @property
    def connections(self):
        """With a SYN in the capture and bytes in both directions."""
        return sum(1 for (a, p, b, q), (_, parts) in self._streams.items()
                   if parts and p > q and self._streams.get((b, q, a, p), (0, []))[1])

    def foreign(self):
        return "; ".join(self._faults[:5])

    def _take(self, frame):
        if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
            return
        ip = 14 + (frame[14] & 15) * 4
        end = 14 + struct.unpack(">H", frame[16:18])[0]
        source, destination = (socket.inet_ntoa(frame[at:at + 4]) for at in (26, 30))
        sport, dport, sequence = struct.unpack(">HHI", frame[ip:ip + 8])
        flags = frame[ip + 13]
        data = frame[ip + (frame[ip + 12] >> 4) * 4:end]
        key = (source, sport, destination, dport)
        if flags & 2:  # SYN
            self._streams[key] = [(sequence + 1) & 0xffffffff, []]
        elif data and key in self._streams:
            self._streams[key][1].append((sequence, data))

    def _walk(self, key, stream):
        source, sport, destination, dport = key
        at = 0
        while at + 5 <= len(stream):
            kind, version, size = struct.unpack(">BHH", stream[at:at + 5])
            if kind not in (ALERT, HANDSHAKE, DATA, CIPHER) or version not in (0x0301, 0x0303) or size > 16384 + 256:
                self._faults.append("%s:%d to %s:%d: not TLS at byte %d: %r" % (source, sport, destination, dport, at, stream[at:at + 40]))
                return
            body = stream[at + 5:at + 5 + size]
            if kind == HANDSHAKE and body[:1] == b"\x02":
                if b"\x00\x2b\x00\x02\x03\x04" in body:  # supported_versions: 1.3
                    self.hellos[(destination, source)] += 1
                else:
                    self._faults.append("%s:%d chose a TLS older than 1.3" % (source, sport))
            elif kind == HANDSHAKE and body[:1] not in (b"\x01", b""):
                self._faults.append("%s:%d: a handshake message %d in the clear" % (source, sport, body[0]))
            at += 5 + size
        self.walked += len(stream)


def _frames(pcap):
    at = 24
    while at + 16 <= len(pcap):
        size = struct.unpack("<I", pcap[at + 8:at + 12])[0]
        yield pcap[at + 16:at + 16 + size]
        at += 16 + size


def _join(first, parts):
    """The bytes from the start of the stream to the first gap; what was sent again counts once."""
    out = bytearray()
    for sequence, data in sorted((((s - first) & 0xffffffff), d) for s, d in parts):
        if sequence > len(out):
            break
        out += data[len(out) - sequence:]
    return bytes(out)
