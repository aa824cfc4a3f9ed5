"""No change of a bundle, whatever it is, brings anything false into a store."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.bundles import Bundle
from mirror.errors import BadBundle, StoreFull
from tests.bundled import everything, keep_many, opened, take, tar_of, tree


async def sample() -> tuple[bytes, dict[str, bytes | None], list[int]]:
    """A bundle, the tree it makes, and the places in it where something begins or ends."""
    folder = Path(mkdtemp())
    try:
        async with opened(folder / "a") as store:
            bundle = Bundle.of(store, await keep_many(store))
            raw = await tar_of(bundle)
        edges = [at for one in bundle.members for at in (one.offset, one.offset + len(one.head), one.end)]
        return raw, tree(folder / "a"), edges
    finally:
        rmtree(folder)


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """What is done, where (as a choice of an edge and a way from it), and with which bytes."""
    what = draw(st.sampled_from(["flip", "insert", "cut out", "truncate", "double"]))
    content = draw(st.binary(min_size=1, max_size=600) | st.sampled_from([bytes(512), bytes(1024), b"\xff" * 8]))
    return what, draw(st.integers(0, 1 << 20)), content


def changed(raw: bytes, what: str, at: int, content: bytes) -> bytes:
    """The bundle with one change at a byte."""
    end = at + len(content)
    match what:
        case "flip":
            return raw[:at] + bytes(a ^ b for a, b in zip(raw[at:end], content, strict=False)) + raw[end:]
        case "insert":
            return raw[:at] + content + raw[at:]
        case "cut out":
            return raw[:at] + raw[end:]
        case "double":
            return raw[:end] + raw[at:end] + raw[end:]
        case _:
            return raw[:at]


@settings(max_examples=250, deadline=None)
@given(change=changes(), near_an_edge=st.booleans())
async def test_a_changed_bundle_is_refused_or_makes_the_same_tree(
    change: tuple[str, int, bytes], near_an_edge: bool
) -> None:
    """A changed byte in the padding is nobody's concern; anywhere else it must not matter to the store."""
    raw, right, edges = await known()
    what, number, content = change
    at = edges[number % len(edges)] + number // len(edges) % 600 - 40 if near_an_edge else number % len(raw)
    spoilt = changed(raw, what, min(max(at, 0), len(raw)), content)
    folder = Path(mkdtemp())
    try:
        async with opened(folder) as store:
            empty = everything(folder)
            try:
                await take(store, spoilt)
            except (BadBundle, StoreFull):
                assert everything(folder) == empty
            else:
                assert tree(folder) == right
    finally:
        rmtree(folder)


_known: list[tuple[bytes, dict[str, bytes | None], list[int]]] = []


async def known() -> tuple[bytes, dict[str, bytes | None], list[int]]:
    """The sample, made once."""
    if not _known:
        _known.append(await sample())
    return _known[0]
