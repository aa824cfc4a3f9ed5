"""Bytes that come in chunks of any size, taken out in portions that suit."""

from collections.abc import AsyncIterator, Callable


class Feed:
    """The bytes of ``chunks`` in order. Holds one chunk and one portion; ``at`` is how many bytes were taken out.

    ``arrived`` is told with each chunk how many bytes have come.
    """

    def __init__(self, chunks: AsyncIterator[bytes], arrived: Callable[[int], None] = lambda _: None) -> None:
        self._chunks = chunks
        self._arrived = arrived
        self._rest = memoryview(b"")
        self.at = 0

    async def upto(self, count: int) -> bytes:
        """Take the next ``count`` bytes; fewer only where the input ends."""
        parts: list[memoryview] = []
        while count:
            if not self._rest:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
                self._arrived(self.at + len(chunk))
                continue
            part, self._rest = self._rest[:count], self._rest[count:]
            parts.append(part)
            self.at += len(part)
            count -= len(part)
        return b"".join(parts)
