"""What a node's machine says of itself."""

import asyncio
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.hub.machine import Machine, addresses_towards, parse_gpus
from tests.support import SOON_S

SAID = "NVIDIA GeForce RTX 4090, 24564, 1024, 37\nTesla T4, 15360, [N/A], [N/A]\n"
CARDS = [
    {"name": "NVIDIA GeForce RTX 4090", "memory": 24564 << 20, "memory_used": 1024 << 20, "load": 0.37},
    {"name": "Tesla T4", "memory": 15360 << 20, "memory_used": None, "load": None},
]


def program(folder: Path, script: str) -> str:
    """A program that stands for nvidia-smi."""
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_cards_are_read() -> None:
    """In bytes and shares; what the program does not know is None."""
    assert parse_gpus(SAID) == CARDS
    assert parse_gpus("") == []
    assert len(parse_gpus(SAID * 50)) == 16


@given(st.text(alphabet='a1,"\n\r [/]\0', max_size=60) | st.text(max_size=40))
def test_whatever_a_program_says_is_cards_or_nothing(text: str) -> None:
    """A driver in trouble writes sentences."""
    for card in parse_gpus(text):
        assert set(card) == set(CARDS[0])


@pytest.mark.parametrize(
    ("script", "cards"),
    [
        (f"printf '{SAID}'", CARDS),
        (f"printf '{SAID}'; exit 9", []),
        ("echo NVIDIA-SMI has failed", []),
        ("yes", []),
    ],
)
async def test_the_program_is_asked(tmp_path: Path, script: str, cards: object) -> None:
    """And what fails, or says too much, costs nothing but the cards."""
    async with asyncio.timeout(SOON_S):
        assert await Machine(program(tmp_path, script)).gpus() == cards


async def test_no_program_no_cards() -> None:
    """Most machines have none."""
    assert await Machine("/nonexistent/nvidia-smi").gpus() == []


def test_load_is_a_share() -> None:
    """From 0 to 1, as older nodes told it."""
    load = Machine("/nonexistent/nvidia-smi").load()
    assert load.memory is not None
    assert load.cpu is not None
    assert 0 <= load.cpu <= 1
    assert 0 < load.memory <= 1


async def test_addresses_are_those_of_the_way_to_the_hub() -> None:
    """Where there is no such way there is none."""
    assert (await addresses_towards("http://127.0.0.1:9"))[0] == "127.0.0.1"
    assert (await addresses_towards("http://127.0.0.1:9"))[1] is None
    assert (await addresses_towards("http://[::1]:9"))[0] is None
    assert await addresses_towards("http://no-such-host.invalid") == (None, None)
