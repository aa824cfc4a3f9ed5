"""``mirror status``: the one screen."""

import json
from pathlib import Path

from tests.fakes.registry import running_fake_registry
from tests.process import mirror, serving
from tests.support import add_blob


async def test_it_says_what_one_wants_to_know(tmp_path: Path) -> None:
    """Of the mirror that serves this store, and of the store itself when none does."""
    store = tmp_path / "store"
    async with running_fake_registry() as fake:
        add_blob(fake, 1000)
        async with serving(store, fake.url) as (url, _):
            assert (await mirror("prefetch", "m", "--store", str(store))).code == 0
            assert (await mirror("pulls", "add", "n", "--store", str(store))).code == 0
            shown = (await mirror("status", "--store", str(store))).out
            for said in (
                f"serves at {url}",
                "1 pending",
                "1 model, ",
                "% used",
                str(store),
                "mirror pulls add llama3.2",
            ):
                assert said in shown
            far = json.loads((await mirror("status", "--server", url, "--json")).out)
            assert (far["url"], far["state"], far["queue"]["counts"]["pending"]) == (url, None, 1)
    alone = (await mirror("status", "--store", str(store))).out
    assert "does not run" in alone
    assert "1 pending" in alone
    none = await mirror("status", "--store", str(tmp_path / "none"))
    assert (none.code, none.out) == (2, "")
