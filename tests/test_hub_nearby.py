"""A hub that says where it is, and a node that finds it: real multicast, on the loopback interface alone."""

import pytest

from mirror.hub.nearby import NoMulticast, announced, found

HERE = ["127.0.0.1"]


async def test_a_hub_is_found_where_it_announces_itself() -> None:
    """By its address, so that no name has to be resolved."""
    async with announced(11434, HERE, name="hub-of-a-test", interfaces=HERE):
        assert await found(20, interfaces=HERE) == "http://127.0.0.1:11434"


async def test_where_no_hub_is_the_search_ends() -> None:
    """With a sentence that says what to do."""
    with pytest.raises(NoMulticast, match=r"hub\.announce"):
        await found(0.3, interfaces=HERE)
