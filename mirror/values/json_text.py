"""How much work a JSON text is to read, known before it is read."""

MOST_PARTS = 2_000_000
LARGE_JSON = 1 << 20
"""Bytes; a longer text is read in a thread, so that nothing else waits for it."""
_SLICE = 1 << 20


def too_many_parts(text: bytes | bytearray) -> bool:
    """Whether a JSON text has so many parts that reading it would hold up everybody.

    A string of a hundred megabytes, such as a picture, is read in a fifth of a second; as many megabytes of small
    numbers take seconds, in which Python's reader lets no other thread run, and twenty times their memory. Commas and
    brackets within strings count too: of prose there is one for every sixty letters.
    """
    if len(text) <= MOST_PARTS:
        return False
    view, parts = memoryview(text), 0
    for at in range(0, len(text), _SLICE):
        piece = bytes(view[at : at + _SLICE])  # other threads may run between two of them
        parts += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
    return parts > MOST_PARTS
