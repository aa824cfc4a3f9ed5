"""Pages in Chromium: what it complains of, how they look at every width, what they do, with scripts and without.

With MIRROR_SCREENSHOTS set to a folder, a picture of each page is written there.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from mirror.demo.model import MODEL_TYPE
from mirror.pulls import State
from mirror.values import ModelName
from tests.behind import Fronted, asked, fronted
from tests.support import noise
from tests.test_pages import EVERY
from tests.test_turns import GENERATE

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
LICENSE = "application/vnd.ollama.image.license"
PAGES = (*EVERY, "/mirror/models/llama3.2:latest", "/mirror/pulls?name=qwen3")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser, without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(browser: Browser, at: Fronted, path: str, **how: Any) -> AsyncIterator[Page]:
    """A page, which must end without a word on its console."""
    context = await browser.new_context(base_url=str(at.client.url("/")), **how)
    page, said = await context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 200
        yield page
        assert said == []
    finally:
        await context.close()


@asynccontextmanager
async def furnished(folder: Path, **changes: Any) -> AsyncIterator[Fronted]:
    """A mirror that has something to show on every page."""
    async with fronted(folder, **changes) as at:
        for seed, name in enumerate(("llama3.2", "qwen3")):
            layers = {MODEL_TYPE: noise(200_000, seed), LICENSE: b"MIT License\n\nPermission is hereby granted."}
            at.registry.add_model(f"library/{name}:latest", layers)
        await at.mirror.parts.puller.pull(ModelName.parse("llama3.2"), lambda _: None)
        await asked(at.client, "/api/generate", GENERATE, X_User_ID="ann")
        await asked(at.client, "/api/v1/prompt", {"prompt": "Why is the sky blue?", "model": "m"})
        await asked(at.client, "/mirror/v1/queue", {"name": "qwen3"})
        yield at


@pytest.mark.timeout(180)
async def test_no_page_has_a_fault_that_axe_knows(tmp_path: Path) -> None:
    """Contrast, labels, roles and headings, in light and dark; nothing is wider than a small phone."""
    async with furnished(tmp_path, pulls__windows=()) as at, chromium() as browser:
        for scheme in ("light", "dark"):
            for path in PAGES:
                async with opened(browser, at, path, color_scheme=scheme) as page:
                    found = await Axe().run(page)
                    assert found.violations_count == 0, f"{path} {scheme}: {found.generate_report()}"
                    await _pictured(page, path, scheme)
        for path in PAGES:
            async with opened(browser, at, path, viewport={"width": 375, "height": 700}) as page:
                assert await page.evaluate("document.documentElement.scrollWidth") <= 375, path


async def _pictured(page: Page, path: str, scheme: str) -> None:
    if (folder := os.environ.get("MIRROR_SCREENSHOTS")) and scheme == "light":
        name = path.partition("?")[0].strip("/").removeprefix("mirror/").partition("/")[0] or "home"
        file = f"{folder}/{name if '?' not in path else 'ask'}.png"
        await page.screenshot(path=file, full_page=path != "/mirror/setup")


async def test_the_home_page_moves_by_itself_and_survives_a_reload(tmp_path: Path) -> None:
    """What comes in is there without anybody touching the page, and gone when it is done."""
    async with fronted(tmp_path, pulls__windows=("00:00-24:00",), pulls__rate=400_000) as at, chromium() as browser:
        at.registry.add_model("library/slow:latest", {MODEL_TYPE: noise(3_000_000)})
        async with opened(browser, at, "/") as page:
            await expect(page.locator("#fills")).to_contain_text("Nothing at the moment.")
            await asked(at.client, "/mirror/v1/queue", {"name": "slow"})
            await expect(page.locator("#fills")).to_contain_text("slow:latest", timeout=15_000)
            await page.reload()
            await expect(page.locator("#fills progress")).to_have_count(1)
            await expect(page.locator("#fills")).to_contain_text("Nothing at the moment.", timeout=30_000)
            await expect(page.locator("#figures")).to_contain_text("3.0 MB")


@pytest.mark.parametrize("scripts", [True, False])
async def test_every_action_is_done_once(scripts: bool, tmp_path: Path) -> None:
    """By clicking, with scripts and without."""
    async with furnished(tmp_path, pulls__windows=()) as at, chromium() as browser:
        parts = at.mirror.parts
        async with opened(browser, at, "/mirror/models/llama3.2:latest", java_script_enabled=scripts) as page:
            await page.get_by_role("button", name="Pin").click()
            await expect(page.get_by_role("status")).to_have_text("The model stays.")
            await page.get_by_role("button", name="Unpin").click()
            await expect(page.get_by_role("status")).to_contain_text("may go")
            await page.get_by_text("Drop it").click()
            await page.get_by_role("button", name="Drop llama3.2:latest").click()
            await expect(page.get_by_role("status")).to_have_text("The model is gone.")
            await page.get_by_role("link", name="Pulls").click()
            await page.get_by_label("Ask for a model").fill("llama3.2")
            await page.get_by_role("button", name="See what it is").click()
            await page.get_by_role("button", name="Queue llama3.2:latest").click()
            await expect(page.get_by_role("status")).to_have_text("It is in the queue.")
            await page.get_by_role("button", name="Up").click()
            assert [job.name.short for job in parts.queue.jobs] == ["llama3.2:latest", "qwen3:latest"]
            await page.get_by_role("button", name="Cancel").last.click()
            await page.get_by_role("button", name="Pause").click()
            await page.get_by_role("button", name="Go on").click()
            await page.get_by_role("button", name="Now").click()
            await expect(page.get_by_role("status")).to_contain_text("as soon as")
            await page.get_by_role("link", name="Users").click()
            await page.get_by_role("row", name="ann").get_by_role("button", name="Block").click()
            await page.get_by_role("row", name="ann").get_by_role("button", name="Unblock").click()
            await page.get_by_label("share of ann").fill("3")
            await page.get_by_role("row", name="ann").get_by_role("button", name="Set share").click()
            await expect(page.get_by_role("status")).to_contain_text("share")
            await page.get_by_role("link", name="Ollamas").click()
            await page.get_by_role("button", name="Give it nothing new").click()
            await page.get_by_role("button", name="Give it work again").click()
            await expect(page.get_by_role("status")).to_have_text("It gets work again.")
        assert [one.weight for one in parts.turns.users() if one.user == "ann"] == [3.0]
        ended = await parts.queue.history(10)
        assert {job.name.short: job.state for job in ended}["qwen3:latest"] is State.CANCELLED


@pytest.mark.parametrize("scripts", [True, False])
async def test_a_prompt_is_left_and_its_answer_read(scripts: bool, tmp_path: Path) -> None:
    """The answer comes by itself; without scripts the page is loaded anew every five seconds."""
    async with (
        fronted(tmp_path) as at,
        chromium() as browser,
        opened(browser, at, "/prompts", java_script_enabled=scripts) as page,
    ):
        await page.get_by_role("textbox", name="Prompt").fill("<b>why</b>")
        await page.get_by_label("Model").fill("m")
        await page.get_by_role("button", name="Queue prompt").click()
        await expect(page.locator("#state")).to_contain_text("completed", timeout=20_000)
        await expect(page.locator("pre.text")).not_to_be_empty()
        await page.get_by_role("link", name="All prompts").click()
        await expect(page.locator("#rows")).to_contain_text("completed")


async def test_a_page_is_used_by_keyboard_alone(tmp_path: Path) -> None:
    """The first stop leads past the menu; every button is come to."""
    async with furnished(tmp_path) as at, chromium() as browser, opened(browser, at, "/mirror/users") as page:
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "To the content"
        stops = set()
        for _ in range(30):
            await page.keyboard.press("Tab")
            stops.add(await page.evaluate("document.activeElement.textContent.trim()"))
        assert {"Home", "Models", "Block", "Set share"} <= stops
