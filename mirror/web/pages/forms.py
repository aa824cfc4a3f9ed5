"""Forms: what a page sends back, and what it is answered. They work without scripts."""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, quote

from aiohttp import web

from mirror.errors import MirrorError
from mirror.values import Invalid
from mirror.web.pages.shown import Shown
from mirror.web.problems import problem_of

TOKEN = "form"  # noqa: S105  # the name of a field
_LARGEST = 1 << 20
_MOST_FIELDS = 100

Fields = Mapping[str, str]
Act = Callable[[web.Request, Fields], Awaitable[web.StreamResponse | str]]
"""Does what a form asks; returns where to go on, or what to show."""


class BadForm(Invalid):
    """A form that is not one of ours, or lacks a field."""

    kind = "form"


def acting(shown: Shown, act: Act) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Wrap what a form does. It has to come from a page of ours; what is foreseen to fail becomes a page saying so."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            fields = await _fields(request)
            if not shown.is_ours(request, fields.get(TOKEN, "")):
                said = "this form is not from a page of this mirror, or is of another day; load the page again"
                return failed(shown, request, 403, said)
            found = await act(request, fields)
        except (MirrorError, Invalid) as error:
            return failed(shown, request, problem_of(error).status, str(error))
        if isinstance(found, str):
            return web.Response(status=303, headers={"Location": found})
        return found

    return answer


def failed(shown: Shown, request: web.Request, status: int, said: str) -> web.Response:
    """Return a page that says what went wrong, and leads back."""
    return shown.page(request, "failed.html", {"said": said, "back": _back(request)}, status=status)


def done(path: str, what: str, anchor: str = "") -> str:
    """Return where to go on after an action: a page, which says what was done (a key of DONE)."""
    return f"{path}?done={what}{f'#{quote(anchor)}' if anchor else ''}"


def field(fields: Fields, name: str) -> str:
    """Return a field that has to be there. Raises BadForm."""
    text = fields.get(name, "").strip()
    if not text:
        raise BadForm(name, "a text in this field")
    return text


async def _fields(request: web.Request) -> Fields:
    if request.content_type != "application/x-www-form-urlencoded":
        raise BadForm(request.content_type, "application/x-www-form-urlencoded")
    raw = bytearray()
    while chunk := await request.content.readany():
        raw += chunk
        if len(raw) > _LARGEST:
            raise BadForm(f"{len(raw)} bytes", f"at most {_LARGEST} bytes")
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise BadForm("fields", f"at most {_MOST_FIELDS} fields of text in UTF-8") from error
    return dict(pairs)


def _back(request: web.Request) -> str:
    """Return the page above: all of a page's forms go to paths below its own."""
    return request.path.rpartition("/")[0] or "/"
