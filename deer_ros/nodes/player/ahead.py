"""Messages read before they are due, as far as memory is granted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

Message = tuple[str, int, bytes]
LIMIT_BYTES = 32 * 2**20
# What a message takes beside its bytes: a bag of small ones would fill the memory with it.
OVERHEAD_BYTES = 200


class ReadAhead:
    """Takes messages (topic, time, bytes) from an iterator whenever the caller has time.

    A slow disk, or a chunk to decompress, then makes nothing late.
    """

    def __init__(self, messages: Iterator[Message], limit_bytes: int = LIMIT_BYTES) -> None:
        self._messages = messages
        self._limit_bytes = limit_bytes
        self._read: deque[Message] = deque()
        self._bytes = 0
        self._ended = False

    def read_one(self) -> bool:
        """Read one more. False: the memory is used up, or the bag has ended."""
        if self._ended or self._bytes >= self._limit_bytes:
            return False
        message = next(self._messages, None)
        if message is None:
            self._ended = True
            return False
        self._read.append(message)
        self._bytes += len(message[2]) + OVERHEAD_BYTES
        return True

    def first(self) -> Message | None:
        """The next message, which stays; None at the end."""
        if not self._read:
            self.read_one()
        return self._read[0] if self._read else None

    def drop(self) -> None:
        """The next message is done with."""
        self._bytes -= len(self._read.popleft()[2]) + OVERHEAD_BYTES
