"""What parsing raises: the text that was refused, and what would have been accepted."""


class Invalid(ValueError):
    """A text that does not parse; nothing was done with it.

    ``kind`` names what was expected, ``text`` is the offending text (cut to 200 characters for messages),
    ``accepted`` says in one phrase what would have been taken.
    """

    kind = "value"

    def __init__(self, text: str, accepted: str) -> None:
        self.text = text
        self.accepted = accepted
        shown = text if len(text) <= 200 else f"{text[:200]}…"
        super().__init__(f"invalid {self.kind} {shown!r}: accepted is {accepted}")


class InvalidDigest(Invalid):
    """Not ``sha256:`` and 64 hexadecimal digits."""

    kind = "digest"


class InvalidModelName(Invalid):
    """Not a model name in Ollama's grammar."""

    kind = "model name"


class InvalidManifest(Invalid):
    """Bytes that are not an image manifest or index."""

    kind = "manifest"


class InvalidRange(Invalid):
    """A Range or Content-Range header that cannot be understood."""

    kind = "range"


class InvalidWindow(Invalid):
    """A time window that cannot be understood."""

    kind = "time window"


class InvalidPattern(Invalid):
    """A pattern that no model's name can match."""

    kind = "pattern"
