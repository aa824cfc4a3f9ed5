"""Model names: Ollama's grammar exactly (types/model/name.go)."""

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mirror.values import DEFAULT_HOST, InvalidModelName, ModelName

FIRST = string.ascii_letters + string.digits + "_"


def parts(others: str, longest: int) -> st.SearchStrategy[str]:
    """Every part with these characters after its first, up to this long."""
    rest = st.text(FIRST + others, max_size=longest - 1)
    return st.tuples(st.sampled_from(FIRST), rest).map("".join)


HOSTS, NAMESPACES, MODELS = parts("-.:", 350), parts("-", 80), parts("-.", 80)
NAMES = st.builds(ModelName, HOSTS, NAMESPACES, MODELS, MODELS)


def as_ollama_reads(text: str) -> tuple[str, str, str, str] | None:
    """ParseName and IsFullyQualified of types/model/name.go, written down from the Go, None where not valid."""

    def cut(rest: str, mark: str) -> tuple[str, str, bool]:
        at = rest.rfind(mark)
        if at < 0:
            return rest, "", False
        return rest[:at] or "!MISSING!", rest[at + 1 :] or "!MISSING!", True

    host, namespace, tag = DEFAULT_HOST, "library", "latest"
    rest = text
    if text.rfind(":") > text.rfind("/"):
        rest, tag, _ = cut(rest, ":")
    rest, model, promised = cut(rest, "/")
    if not promised:
        model = rest
    else:
        rest, namespace, promised = cut(rest, "/")
        if not promised:
            namespace = rest
        else:
            host = rest.partition("://")[2] if "://" in rest else rest
    for part, others, longest in ((host, "-.:", 350), (namespace, "-", 80), (model, "-.", 80), (tag, "-.", 80)):
        if not 1 <= len(part.encode()) <= longest or part[0] not in FIRST or set(part) - set(FIRST + others):
            return None
    return host, namespace, model, tag


@given(NAMES)
def test_a_name_reads_back_what_it_writes(name: ModelName) -> None:
    """Names travel as text through the API, the log and the database."""
    assert ModelName.parse(str(name)) == name


@given(NAMES)
def test_a_name_reads_back_its_short_form(name: ModelName) -> None:
    """What a user is shown can be typed again."""
    assert ModelName.parse(name.short).folded == name.folded


@given(st.text("aB9_-.:/@!é \0\n", max_size=14) | st.text(max_size=30))
def test_it_accepts_what_ollama_accepts_and_reads_it_the_same(text: str) -> None:
    """A name the client takes must not be refused here, nor become another model."""
    expected = as_ollama_reads(text)
    try:
        got = ModelName.parse(text)
    except InvalidModelName:
        assert expected is None
    else:
        assert expected == (got.host, got.namespace, got.model, got.tag)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("m", "registry.ollama.ai/library/m:latest"),
        ("m:1b", "registry.ollama.ai/library/m:1b"),
        ("ns/m", "registry.ollama.ai/ns/m:latest"),
        ("h/ns/m", "h/ns/m:latest"),
        ("localhost:5000/ns/m:t", "localhost:5000/ns/m:t"),
        ("http://localhost:5000/ns/m", "localhost:5000/ns/m:latest"),
        ("https://hf.co/user/repo.gguf:Q4_K_M", "hf.co/user/repo.gguf:Q4_K_M"),
        ("any://hf.co/user/repo", "hf.co/user/repo:latest"),
        ("_/_/_:_", "_/_/_:_"),
        ("1.5b", "registry.ollama.ai/library/1.5b:latest"),
    ],
)
def test_missing_parts_get_ollamas_defaults_and_the_scheme_is_dropped(text: str, full: str) -> None:
    """So every way to write a name leads to the one the client asks for."""
    assert str(ModelName.parse(text)) == full


def test_the_default_host_can_be_another() -> None:
    """A mirror of another registry reads plain names as that registry's."""
    assert str(ModelName.parse("m", host="example.org:5000")) == "example.org:5000/library/m:latest"
    assert ModelName.parse("h/ns/m", host="example.org").host == "h"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "/",
        "//",
        "m:",
        ":t",
        "/m",
        "ns/",
        "/ns/m",
        "h//m",
        "localhost:5000/m",
        "https://m",
        "https://ns/m",
        "h/ns/x://m",
        "a/h/ns/m",
        "m@sha256:" + "0" * 64,
        "m:t@sha256:" + "0" * 64,
        "n.s/m",
        "h/n.s/m",
        "-m",
        ".m",
        "..",
        "../../etc/passwd",
        "h/../m",
        "h/ns/..",
        "m:..",
        "m:.t",
        "m:-t",
        "%2e%2e/m",
        "..%2fm",
        "m\0",
        "m\n",
        "m ",
        " m",
        "mé",
        "\uff4d",
        "m٣",
        "m" * 81,
        "n" * 81 + "/m",
        "m:" + "t" * 81,
        "h" * 351 + "/ns/m",
        "[::1]:5000/ns/m",
        "a\\b",
        "m*",
    ],
)
def test_what_ollama_refuses_is_refused(text: str) -> None:
    """Such a name cannot be asked for, and some of them would leave the store's folder."""
    assert as_ollama_reads(text) is None
    with pytest.raises(InvalidModelName) as refused:
        ModelName.parse(text)
    assert refused.value.text == text


def test_the_longest_parts_are_accepted() -> None:
    """The limits of 350 and 80 bytes are inclusive."""
    longest = f"{'h' * 350}/{'n' * 80}/{'m' * 80}:{'t' * 80}"
    assert str(ModelName.parse(longest)) == longest


def test_a_name_cannot_be_made_of_parts_that_are_not_valid() -> None:
    """The type itself is the guard of the paths made from it, not only its parser."""
    name = ModelName.parse("m")
    with pytest.raises(InvalidModelName):
        name.with_tag("../x")
    with pytest.raises(InvalidModelName):
        ModelName("h", "..", "m", "t")
    assert str(name.with_tag("t")) == "registry.ollama.ai/library/m:t"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("m", "m:latest"),
        ("Library/M:T", "M:T"),
        ("Registry.Ollama.AI/library/m", "m:latest"),
        ("ns/m", "ns/m:latest"),
        ("hf.co/library/m", "hf.co/library/m:latest"),
    ],
)
def test_the_short_form_is_the_one_ollama_shows(text: str, short: str) -> None:
    """Users compare our lists with those of ollama list."""
    assert ModelName.parse(text).short == short


@given(NAMES)
def test_folding_forgets_letter_case_and_nothing_else(name: ModelName) -> None:
    """Ollama matches what it has whatever the letter case, and so do we."""
    swapped = ModelName(*(part.swapcase() for part in (name.host, name.namespace, name.model, name.tag)))
    assert swapped.folded == name.folded == name.folded.folded
    assert str(name.folded) == str(name).lower()


@given(NAMES, NAMES)
def test_different_names_fold_to_different_names(one: ModelName, other: ModelName) -> None:
    """Two models must never be taken for one."""
    assume(str(one).lower() != str(other).lower())
    assert one.folded != other.folded


def test_the_repository_is_two_segments() -> None:
    """A registry knows a model by namespace and model, without host and tag."""
    assert ModelName.parse("h:1/ns/m:t").repository == "ns/m"
