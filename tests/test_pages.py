"""Pages and their forms, without a browser: what they do, for whom, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest

from mirror.access import Keyring, Scope
from mirror.demo.model import MODEL_TYPE
from mirror.values import ModelName
from tests.behind import Fronted, asked, fronted
from tests.fakes.registry import running_fake_registry
from tests.pages import page, send
from tests.support import add_blob, eventually, mirrored, noise
from tests.test_turns import GENERATE

EVERY = (
    "/",
    "/mirror/models",
    "/mirror/pulls",
    "/prompts",
    "/list",
    "/mirror/users",
    "/mirror/ollamas",
    "/mirror/stats",
    "/mirror/keys",
    "/mirror/setup",
)
ELSEWHERE: dict[str, Any] = {"security__trusted_proxies": ["127.0.0.1"]}
FROM = {"X_Forwarded_For": "192.0.2.7"}


async def _pulled(at: Fronted, name: str, size: int = 1000) -> None:
    at.registry.add_model(f"library/{name}:latest", {MODEL_TYPE: noise(size)})
    await at.mirror.parts.puller.pull(ModelName.parse(name), lambda _: None)


async def test_every_page_is_there_and_leads_to_the_others(tmp_path: Path) -> None:
    """With one style and one script, both ours."""
    async with fronted(tmp_path) as at:
        for path in EVERY:
            found = await page(at.client, path)
            assert found.status == 200, path
            assert all(f'href="{other}"' in found.text for other in ("/", "/mirror/models", "/prompts")), path
        for name, kind in (("mirror.css", "text/css"), ("mirror.js", "text/javascript")):
            answer = await at.client.get(f"/mirror/static/{name}")
            assert (answer.status, answer.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
            again = await at.client.get(f"/mirror/static/{name}", If_None_Match=answer.headers["ETag"])
            assert again.status == 304
        assert (await at.client.get("/mirror/static/../pages/shown.py")).status == 404


async def test_without_the_web_ui_there_are_no_pages(tmp_path: Path) -> None:
    """Programs get what they got."""
    async with fronted(tmp_path, features__enable_web_ui=False) as at:
        assert (await page(at.client, "/")).text == "Ollama is running"
        assert [(await page(at.client, path)).status for path in ("/mirror/models", "/prompts", "/list")] == [404] * 3


@pytest.mark.parametrize("token", ["", "wrong", "ä\udce4" * 20])
async def test_a_form_that_is_not_ours_changes_nothing(token: str, tmp_path: Path) -> None:
    """And says why not."""
    async with fronted(tmp_path) as at:
        found = await send(at.client, "/mirror/pulls/pause", token.encode("utf-8", "replace").decode())
        assert (found.status, "not from a page of this mirror" in found.words) == (403, True)
        assert not at.mirror.parts.queue.paused


async def test_a_form_of_one_who_asks_from_elsewhere_is_nobody_else_s(tmp_path: Path) -> None:
    """A token that one machine was shown is of no use on a page that another machine's browser sends."""
    async with fronted(tmp_path, **ELSEWHERE) as at:
        theirs = (await page(at.client, "/prompts", FROM)).token
        said = {"prompt": "why"}
        assert (await send(at.client, "/prompts/ask", theirs, {"X-Forwarded-For": "192.0.2.7"}, **said)).status == 303
        assert (await send(at.client, "/prompts/ask", theirs, {"X-Forwarded-For": "192.0.2.8"}, **said)).status == 403


async def test_who_may_only_look_sees_no_button_and_is_refused(tmp_path: Path) -> None:
    """From another machine, without a key."""
    async with fronted(tmp_path, **ELSEWHERE) as at:
        await _pulled(at, "m")
        for path in ("/mirror/users", "/mirror/ollamas", "/mirror/models/m:latest"):
            found = await page(at.client, path, FROM)
            assert (found.status, "<button" in found.text) == (200, False), path
            assert "looking only" in found.words
        assert (await page(at.client, "/mirror/keys", FROM)).status == 403
        token = (await page(at.client, "/mirror/pulls", FROM)).token
        found = await send(at.client, "/mirror/pulls/pause", token, {"X-Forwarded-For": "192.0.2.7"})
        assert (found.status, at.mirror.parts.queue.paused) == (403, False)


async def test_a_browser_signs_in_with_a_key_as_its_password(tmp_path: Path) -> None:
    """And comes home with it."""
    secret = str(Keyring(tmp_path / "state").add("boss", [Scope.ADMIN])[1])
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        asking = await client.get("/mirror/signin", Accept="text/html")
        assert (asking.status, asking.headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
        shown = {"Authorization": f"Bearer {secret}"}
        assert (await client.get("/mirror/signin", Authorization=f"Bearer {secret}")).headers["Location"] == "/"
        assert "boss" in (await page(client, "/mirror/keys", shown)).words


async def test_models_are_pinned_updated_and_dropped(tmp_path: Path) -> None:
    """What takes a model away asks first, on the page; here it is sent."""
    async with fronted(tmp_path) as at:
        await _pulled(at, "m")
        token, name = (await page(at.client, "/mirror/models/m:latest")).token, "m:latest"
        pins = at.mirror.parts.keeper.pins
        pinned = await send(at.client, "/mirror/models/pin", token, name=name)
        assert (pinned.status, pinned.where) == (303, "/mirror/models/m:latest?done=pinned")
        assert "The model stays." in (await page(at.client, pinned.where)).words
        assert pins.why(ModelName.parse("m")) is not None
        assert (await send(at.client, "/mirror/models/unpin", token, name=name)).status == 303
        again = await send(at.client, "/mirror/models/unpin", token, name=name)
        assert (again.status, "m:latest is not pinned" in again.words) == (409, True)
        assert (await send(at.client, "/mirror/models/update", token, name=name)).where == "/mirror/pulls?done=updating"
        assert (await send(at.client, "/mirror/models/drop", token, name=name)).where == "/mirror/models?done=dropped"
        assert at.mirror.parts.store.find(ModelName.parse("m")) is None
        assert (await send(at.client, "/mirror/models/drop", token, name=name)).status == 404
        assert (await page(at.client, "/mirror/models/m:latest")).status == 404
        assert (await send(at.client, "/mirror/models/pin", token, name="../x")).status == 400


async def test_a_tag_goes_back_and_is_released(tmp_path: Path) -> None:
    """The page of a model lists what it meant before."""
    async with fronted(tmp_path, cache__manifest_ttl=0) as at:
        await _pulled(at, "m")
        first = at.mirror.parts.store.find(ModelName.parse("m"))
        at.registry.add_model("library/m:latest", {MODEL_TYPE: noise(2000, seed=9)})
        await at.mirror.parts.puller.pull(ModelName.parse("m"), lambda _: None)
        shown = await page(at.client, "/mirror/models/m:latest")
        assert first is not None
        assert first.digest.short in shown.text
        back = await send(at.client, "/mirror/models/rollback", shown.token, name="m:latest", to=first.digest.short)
        assert back.where == "/mirror/models/m:latest?done=rolled_back"
        now = at.mirror.parts.store.find(ModelName.parse("m"))
        assert now is not None
        assert now.digest == first.digest
        assert (await send(at.client, "/mirror/models/release", shown.token, name="m:latest")).status == 303
        wrong = await send(at.client, "/mirror/models/rollback", shown.token, name="m:latest", to="ffffffffffff")
        assert wrong.status == 404


async def test_a_model_is_seen_with_its_size_and_license_before_it_is_asked_for(tmp_path: Path) -> None:
    """Seeing it fetches nothing of its weights; then it is queued, moved, hurried, and cancelled."""
    async with fronted(tmp_path, pulls__windows=()) as at:
        queue, license_type = at.mirror.parts.queue, "application/vnd.ollama.image.license"
        at.registry.add_model("library/m:latest", {MODEL_TYPE: noise(50_000), license_type: b"Be <kind>."})
        at.registry.add_model("library/n:latest", {MODEL_TYPE: noise(50_000, seed=2)})
        offer = await page(at.client, "/mirror/pulls?name=m")
        assert "m:latest" in offer.words
        assert "Be &lt;kind&gt;." in offer.text
        assert at.mirror.parts.store.room.proven < 100, "the license and no more"
        led_here = await page(at.client, "/mirror/pulls?name=m", {"Sec_Fetch_Site": "cross-site"})
        assert "Queue m:latest" not in led_here.words
        assert queue.jobs == []
        assert "nobody" in (await page(at.client, "/mirror/pulls?name=nobody")).words
        assert (await page(at.client, "/mirror/pulls?name=%3Cscript%3E")).text.count("<script>") == 0
        for name in ("m", "n"):
            assert (await send(at.client, "/mirror/pulls/ask", offer.token, name=name)).where.endswith("done=asked")
        first, second = queue.jobs
        moved = await send(at.client, "/mirror/pulls/move", offer.token, job=second.id, position="1")
        assert (moved.status, [one.id for one in queue.jobs]) == (303, [second.id, first.id])
        for bad in ("0", "-1", "x", "9" * 30):
            assert (await send(at.client, "/mirror/pulls/move", offer.token, job=first.id, position=bad)).status == 400
        assert (await send(at.client, "/mirror/pulls/pause", offer.token)).where.endswith("done=paused")
        assert (await send(at.client, "/mirror/pulls/now", offer.token, job=first.id)).status == 303
        assert (await send(at.client, "/mirror/pulls/cancel", offer.token, job=second.id)).status == 303
        assert "cancelled" in (await page(at.client, "/mirror/pulls")).words
        assert (await send(at.client, "/mirror/pulls/retry", offer.token, job=second.name.short)).status == 303
        assert (await send(at.client, "/mirror/pulls/cancel", offer.token, job="nothing")).status == 404
        assert (await send(at.client, "/mirror/pulls/resume", offer.token)).status == 303


async def test_users_are_blocked_and_weighed_and_ollamas_drained(tmp_path: Path) -> None:
    """Names of users are text, whatever is in them."""
    async with fronted(tmp_path) as at:
        name = "<b>ann</b>"
        assert (await asked(at.client, "/api/generate", GENERATE, X_User_ID=name))[0] == 200
        shown = await page(at.client, "/mirror/users")
        assert "&lt;b&gt;ann&lt;/b&gt;" in shown.text
        assert "<b>ann" not in shown.text
        assert (await send(at.client, "/mirror/users/block", shown.token, user=name)).status == 303
        assert (await asked(at.client, "/api/generate", GENERATE, X_User_ID=name))[0] == 403
        assert (await send(at.client, "/mirror/users/unblock", shown.token, user=name)).status == 303
        assert (await send(at.client, "/mirror/users/weigh", shown.token, user=name, weight="2.5")).status == 303
        assert [one.weight for one in at.mirror.parts.turns.users()] == [2.5]
        for bad in ("0", "nan", "inf", "-1", "x", "1001"):
            assert (await send(at.client, "/mirror/users/weigh", shown.token, user=name, weight=bad)).status == 400
        (member,) = at.mirror.parts.pool
        assert (await send(at.client, "/mirror/ollamas/drain", shown.token, backend=member.id)).status == 303
        assert member.draining
        assert (await send(at.client, "/mirror/ollamas/enable", shown.token, backend=member.id)).status == 303
        assert not member.draining
        assert (await send(at.client, "/mirror/ollamas/drain", shown.token, backend="other")).status == 404


async def test_a_prompt_is_left_watched_and_listed(tmp_path: Path) -> None:
    """What is asked and answered is shown as text."""
    async with fronted(tmp_path) as at:
        token = (await page(at.client, "/prompts")).token
        left = await send(at.client, "/prompts/ask", token, prompt="<script>alert(1)</script>", model="m")
        assert left.status == 303

        async def is_completed() -> bool:
            return "completed" in (await page(at.client, left.where)).words

        await eventually(is_completed)
        assert "<script>" not in (await page(at.client, left.where)).text
        assert left.where.removeprefix("/prompts/")[:8] in (await page(at.client, "/list")).words
        assert (await send(at.client, "/prompts/ask", token, prompt="  ")).status == 400
        assert (await send(at.client, "/prompts/ask", token, prompt="x" * 2_000_000)).status == 400
        assert (await page(at.client, "/prompts/unknown")).status == 404
        gone = await send(at.client, "/prompts/cancel", token, id=left.where.removeprefix("/prompts/"))
        assert gone.status == 303


@pytest.mark.parametrize("number", ["0", "-1", "1000000000", "x", "9" * 400])
async def test_a_page_number_that_there_is_not_is_the_nearest(number: str, tmp_path: Path) -> None:
    """Or the first."""
    async with fronted(tmp_path) as at:
        found = await page(at.client, f"/list?page={number}")
        assert (found.status, "Page 1 of 1, 0 in all." in found.words) == (200, True)


async def test_a_key_is_made_shown_once_and_revoked(tmp_path: Path) -> None:
    """Its secret is on the page that made it alone."""
    async with running_fake_registry() as fake:
        add_blob(fake, 100)
        async with mirrored(tmp_path, fake) as (_, client):
            token = (await page(client, "/mirror/keys")).token
            assert (await send(client, "/mirror/keys/add", token, name="boss")).status == 400
            assert (await send(client, "/mirror/keys/add", token, name="b", admin="yes", expires="soon")).status == 400
            made = await send(client, "/mirror/keys/add", token, name="boss", admin="yes")
            secret = next(line for line in made.text.split("\n") if line.startswith("<pre"))[
                len('<pre tabindex="0">') : -6
            ]
            assert made.status == 200
            shown = {"Authorization": f"Bearer {secret}"}
            assert (await client.get("/mirror/keys")).status == 401
            found = await page(client, "/mirror/keys", shown)
            assert (found.status, secret in found.text, "boss" in found.words) == (200, False, True)
            ended = await send(client, "/mirror/keys/revoke", found.token, shown, name="boss")
            assert ended.status == 303


async def test_a_hidden_model_has_no_page(tmp_path: Path) -> None:
    """Nor is it offered."""
    async with fronted(tmp_path, security__rules=[{"deny": ["secret"]}], **ELSEWHERE) as at:
        at.registry.add_model("library/secret:latest", {MODEL_TYPE: noise(100)})
        found = await page(at.client, "/mirror/pulls?name=secret", FROM)
        assert (found.status, "Queue secret" in found.words) == (200, False)
        assert (await page(at.client, "/mirror/models/secret:latest", FROM)).status == 404
