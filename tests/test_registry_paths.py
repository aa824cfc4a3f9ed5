"""Lists, odd paths and wrong methods."""

import json
from pathlib import Path

import pytest

from mirror.demo.model import MODEL_TYPE
from mirror.demo.ollama import pull
from tests.fakes.registry import running_fake_registry
from tests.support import Machine, mirrored, written

GOOD = f"sha256:{'a' * 64}"


async def pages(client: Machine, path: str, key: str) -> list[list[str]]:
    """Follow the links from page to page."""
    found: list[list[str]] = []
    while path:
        answer = await client.get(path)
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        found.append(json.loads(answer.body)[key])
        link = answer.headers.get("Link", "")
        assert link == "" or link.endswith('>; rel="next"')
        path = link.partition(">")[0].removeprefix("<")
    return found


async def test_lists_name_what_is_complete_in_pages(tmp_path: Path) -> None:
    """Upstream offers none; other tools ask for them."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        names = ["library/m:a", "library/m:b", "library/m:c", "me/b:x", "me/a:x"]
        for name in names:
            fake.add_model(name, {MODEL_TYPE: name.encode()})
            await pull(mirror.url, name)
        fake.add_model("library/m:half", {MODEL_TYPE: b"never fetched"})
        await client.get("/v2/library/m/manifests/half")

        assert await pages(client, "/v2/library/m/tags/list", "tags") == [["a", "b", "c"]]
        assert await pages(client, "/v2/library/m/tags/list?n=2", "tags") == [["a", "b"], ["c"]]
        assert await pages(client, "/v2/LIBRARY/m/tags/list?n=2&last=b", "tags") == [["c"]]
        assert await pages(client, "/v2/library/m/tags/list?n=0", "tags") == [[]]
        assert await pages(client, "/v2/_catalog", "repositories") == [["library/m", "me/a", "me/b"]]
        assert await pages(client, "/v2/_catalog?n=1", "repositories") == [["library/m"], ["me/a"], ["me/b"]]
        body = json.loads((await client.get("/v2/library/m/tags/list")).body)
        assert body["name"] == "library/m"
        unknown = await client.get("/v2/library/none/tags/list")
        assert (unknown.status, json.loads(unknown.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
        for said in ("x", "-1", "1.5", "%D9%A3"):
            answer = await client.get(f"/v2/_catalog?n={said}")
            assert answer.status == 400
            assert b"a whole number" in answer.body


async def test_the_base_says_that_this_is_a_registry(tmp_path: Path) -> None:
    """Clients probe it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        for path in ("/v2/", "/v2"):
            for method in ("GET", "HEAD"):
                answer = await client.get(path, method=method)
                assert answer.status == 200
                assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


BAD = [
    ("/v2/../x/manifests/latest", 400, "NAME_INVALID", "a namespace of letters"),
    ("/v2/%2e%2e/x/manifests/latest", 400, "NAME_INVALID", "a namespace of letters"),
    ("/v2/library/%2e%2e/manifests/latest", 400, "NAME_INVALID", "a model of letters"),
    ("/v2/library/..%2f..%2fetc/manifests/latest", 400, "NAME_INVALID", "a model of letters"),
    ("/v2/library/m%00/manifests/latest", 400, "NAME_INVALID", "a model of letters"),
    ("/v2/library/m%0a/manifests/latest", 400, "NAME_INVALID", "a model of letters"),
    ("/v2/li.brary/m/manifests/latest", 400, "NAME_INVALID", "a namespace of letters"),
    (f"/v2/library/{'m' * 81}/manifests/latest", 400, "NAME_INVALID", "1 to 80"),
    (f"/v2/{'n' * 81}/m/manifests/latest", 400, "NAME_INVALID", "1 to 80"),
    (f"/v2/library/m/manifests/{'t' * 81}", 400, "NAME_INVALID", "1 to 80"),
    ("/v2/library/m/manifests/.hidden", 400, "NAME_INVALID", "a tag of letters"),
    ("/v2/library/m/manifests/%2e%2e", 400, "NAME_INVALID", "a tag of letters"),
    ("/v2/library/m/manifests/a%2fb", 400, "NAME_INVALID", "a tag of letters"),
    ("/v2/library/m/manifests/%C3%BC", 400, "NAME_INVALID", "a tag of letters"),
    ("/v2/library/m/manifests/%FF", 400, "NAME_INVALID", "a tag of letters"),
    ("/v2/library/m/manifests/sha256:abc", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    (f"/v2/library/m/manifests/sha512:{'a' * 128}", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    ("/v2/library/m/blobs/latest", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    (f"/v2/library/m/blobs/sha256:{'g' * 64}", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    (f"/v2/library/m/blobs/{GOOD}0", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    (f"/v2/library/m/blobs/{GOOD}%0a", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    (f"/v2/library/m/blobs/..%2f{GOOD}", 400, "DIGEST_INVALID", "64 hexadecimal digits"),
    (f"/v2/../m/blobs/{GOOD}", 400, "NAME_INVALID", "a namespace of letters"),
    ("/v2/m/manifests/latest", 404, "NAME_INVALID", "accepted are"),
    ("/v2/a/b/c/manifests/latest", 404, "NAME_INVALID", "accepted are"),
    ("/v2/library/m", 404, "NAME_INVALID", "accepted are"),
    ("/v2/library//manifests/latest", 404, "NAME_INVALID", "accepted are"),
    ("/v2//m/manifests/latest", 404, "NAME_INVALID", "accepted are"),
    ("/v2/library/m/referrers/x", 404, "NAME_INVALID", "accepted are"),
    ("/v2/nonsense", 404, "NAME_INVALID", "accepted are"),
    ("/v2/library/m/manifests/", 404, "NAME_INVALID", "accepted are"),
]


@pytest.mark.parametrize(("path", "status", "code", "accepted"), BAD)
async def test_a_path_that_is_none_is_refused_with_what_is_accepted(
    path: str, status: int, code: str, accepted: str, tmp_path: Path
) -> None:
    """Nothing is asked upstream, and nothing written."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        answer = await client.get(path)
        (error,) = json.loads(answer.body)["errors"]
        assert (answer.status, error["code"]) == (status, code)
        assert accepted in error["message"]
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert fake.log == []
        assert written(tmp_path) == set()


@pytest.mark.parametrize("said", ["bytes", "bytes=", "bytes=-", "bytes=5-1", "bytes=a-b", "bytes=0x0-5", "0-5"])
async def test_a_range_that_is_none_is_refused(said: str, tmp_path: Path) -> None:
    """Before anything is fetched for it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (mirror, client):
        manifest = fake.add_model("library/m", {MODEL_TYPE: b"weights"})
        await client.manifest()
        before = written(tmp_path)
        for digest in (manifest.layers[0].digest, fake.add_blob(b"in no manifest")):
            answer = await client.get(f"/v2/library/m/blobs/{digest}", Range=said)
            (error,) = json.loads(answer.body)["errors"]
            assert (answer.status, error["code"]) == (416, "RANGE_INVALID")
            assert "bytes=FIRST-LAST" in error["message"]
        assert mirror.parts.fills.in_flight == ()
        assert written(tmp_path) == before
        assert fake.blob_bytes_sent() <= 1, "where no manifest says how long a blob is, its first byte does"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["/v2/", "/v2/_catalog", f"/v2/a/b/blobs/{GOOD}", "/v2/a/b/blobs/uploads/", "/v2/a/b/manifests/x", "/v2/x"],
)
async def test_nothing_can_be_written(method: str, path: str, tmp_path: Path) -> None:
    """405 says that it is no accident."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        answer = await client.get(path, method=method)
        (error,) = json.loads(answer.body)["errors"]
        assert (answer.status, error["code"], answer.headers["Allow"]) == (405, "UNSUPPORTED", "GET, HEAD")
        assert method in error["message"]
        assert "read-only" in error["message"]
        assert fake.log == []
        assert written(tmp_path) == set()


async def test_a_line_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """By the server, before anything looks at it."""
    async with running_fake_registry() as fake, mirrored(tmp_path, fake) as (_, client):
        assert (await client.get(f"/v2/library/m/manifests/{'t' * 9000}")).status == 400
        assert (await client.get("/v2/")).status == 200
        assert fake.log == []
