"""Walking through a tar that comes only forward, strictly and in bounded memory."""

from collections.abc import AsyncIterator, Callable

from mirror.bundles.feed import Feed
from mirror.bundles.places import check_folder
from mirror.bundles.tar import (
    BLOCK,
    Header,
    Kind,
    check_pax,
    padding,
    read_header,
    read_long_name,
    refuse_compressed,
)
from mirror.errors import BadBundle

_PORTION = 1 << 20


class TarStream:
    """The files in a tar, one after another: ``next``, then ``portion`` or ``content``, then ``next`` again.

    Nothing of it is believed but the blocks themselves. Whatever ``chunks`` raises goes through; ``arrived`` is told
    how many bytes have come.
    """

    def __init__(self, chunks: AsyncIterator[bytes], arrived: Callable[[int], None]) -> None:
        self._feed = Feed(chunks, arrived)
        self._left = 0
        self._padding = 0
        self._path = ""

    async def next(self) -> Header | None:
        """Return the next file's header, passing over what is left of the one before; None at the tar's end.

        Raises:
            BadBundle: there is something else, or the input ends too early or too late.
        """
        long_name = None
        while (header := await self._header()) is not None:
            path = header.path if long_name is None else long_name
            match header.kind:
                case Kind.FILE:
                    return Header(Kind.FILE, path, header.size)
                case Kind.FOLDER:
                    check_folder(path)
                    long_name = None
                case Kind.LONG_NAME:
                    long_name = read_long_name(await self.content())
                case Kind.PAX:
                    check_pax(await self.content())
        if long_name is not None:
            raise BadBundle(f"nothing follows the long name {long_name!r}")
        await self._check_end()
        return None

    async def portion(self) -> bytes:
        """Return the next bytes of the file's content, at most 1 MiB; none at its end. Raises BadBundle."""
        found = await self._exactly(min(self._left, _PORTION))
        self._left -= len(found)
        return found

    async def content(self) -> bytes:
        """Return all that is left of the file's content, which the caller has found small enough. Raises BadBundle."""
        found = await self._exactly(self._left)
        self._left = 0
        return found

    async def _header(self) -> Header | None:
        while await self.portion():
            pass
        await self._exactly(self._padding)
        at = self._feed.at
        block = await self._feed.upto(BLOCK)
        if not at:
            refuse_compressed(block)
        header = read_header(self._whole(block, BLOCK), at)
        self._left = header.size if header else 0
        self._padding = padding(self._left)
        self._path = header.path if header else ""
        return header

    async def _check_end(self) -> None:
        """A tar ends with two blocks of zeros, and with more zeros up to a full record."""
        block = await self._exactly(BLOCK)
        while block:
            if block.strip(b"\0"):
                raise BadBundle(f"something follows the tar's end, before byte {self._feed.at}")
            block = await self._feed.upto(_PORTION)

    async def _exactly(self, count: int) -> bytes:
        return self._whole(await self._feed.upto(count), count)

    def _whole(self, found: bytes, wanted: int) -> bytes:
        if len(found) < wanted:
            where = f", in the middle of {self._path!r}" if self._path else ""
            raise BadBundle(f"the tar ends early: after {self._feed.at} bytes{where}")
        return found
