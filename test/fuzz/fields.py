"""Fields out of a fuzzer's bytes. Own code instead of atheris' FuzzedDataProvider, so that found inputs can be replayed as tests without it,
and so that seeds can be written: ``Fields`` takes what ``packed`` has put together.
"""

from __future__ import annotations

import struct

LARGEST_EDIT = 16


class Fields:
    """Takes values from the front; where the bytes end, zeros follow."""

    def __init__(self, data: bytes):
        self._data = data

    def bytes(self, count: int) -> bytes:
        taken, self._data = self._data[:count], self._data[count:]
        return taken.ljust(count, b"\0")

    def byte(self) -> int:
        return self.bytes(1)[0]

    def word(self) -> int:
        """uint32."""
        return int.from_bytes(self.bytes(4), "little")

    def number(self) -> float:
        """float64, also infinite and NaN."""
        return struct.unpack("<d", self.bytes(8))[0]

    def choice(self, options):
        return options[self.byte() % len(options)]

    def rest(self) -> bytes:
        return self.bytes(len(self._data))

    def edited(self, base: bytes) -> bytes:
        """``base`` with as many edits as the rest describes: bytes replaced, inserted, removed, or the end cut off. No rest, no edit."""
        edited = bytearray(base)
        while self._data:
            kind, place, count = self.byte(), self.word() % (len(edited) + 1), self.byte() % LARGEST_EDIT + 1
            if kind % 16 == 0:
                del edited[place:]
            elif kind % 4 == 1:
                del edited[place : place + count]
            elif kind % 4 == 2:
                edited[place:place] = self.bytes(count)
            else:
                edited[place : place + count] = self.bytes(count)
        return bytes(edited)


def packed(*values) -> bytes:
    """The bytes of which Fields takes these values: small ints as bytes, floats as float64, bytes as they are."""
    return b"".join(
        struct.pack("<d", value) if isinstance(value, float) else bytes([value]) if isinstance(value, int) else value for value in values
    )


def word(value: int) -> bytes:
    return value.to_bytes(4, "little")
