"""Digests: what is read as one, what is refused, and that reading undoes writing."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.values import Digest, InvalidDigest

HEX = "0123456789abcdef" * 4
HEXES = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HEXES)
def test_a_digest_reads_back_what_it_writes(digits: str) -> None:
    """Digests travel as text through URLs, headers, manifests and file names."""
    digest = Digest.parse(f"sha256:{digits}")
    assert (str(digest), digest.filename) == (f"sha256:{digits}", f"sha256-{digits}")
    assert Digest.parse(str(digest)) == Digest.parse(digest.filename) == digest


@given(HEXES, st.sampled_from(":-"))
def test_letter_case_of_the_digits_does_not_matter(digits: str, mark: str) -> None:
    """Two spellings of one digest must not become two blobs."""
    assert Digest.parse(f"sha256{mark}{digits.upper()}") == Digest(digits)


@given(st.binary())
def test_the_digest_of_bytes_is_their_sha256(content: bytes) -> None:
    """This is what every other part trusts."""
    assert Digest.of(content).hex == sha256(content).hexdigest()


def test_the_short_form_is_twelve_digits() -> None:
    """Ollama shows a model's id so."""
    assert Digest(HEX).short == "0123456789ab"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX[:-1]}\0",
        f"sha256:{HEX[:-1]}٣",
        f"sha256_{HEX}",
        f"sha256::{HEX[:-1]}",
        f"SHA256:{HEX}",
        f"sha512:{HEX}{HEX}",
        f"md5:{HEX[:32]}",
        f"sha256:{'../' * 21}x",
        f"sha256:{'%2e' * 21}x",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A digest becomes a file name."""
    with pytest.raises(InvalidDigest) as refused:
        Digest.parse(text)
    assert refused.value.text == text


@given(st.text())
def test_no_text_but_sixty_four_digits_is_a_digest(text: str) -> None:
    """Whatever is accepted is nothing but the digits."""
    try:
        digest = Digest.parse(f"sha256:{text}")
    except InvalidDigest:
        return
    assert digest.hex == text.lower()
    assert set(digest.hex) <= set("0123456789abcdef")
    assert len(digest.hex) == 64


def test_a_very_long_text_is_cut_in_the_message() -> None:
    """The message ends up in logs and answers; whoever sent the text must not choose their size."""
    with pytest.raises(InvalidDigest) as refused:
        Digest.parse("x" * 100_000)
    assert len(str(refused.value)) < 400
