"""``mirror key``, and what commands show a running mirror."""

import json
import os
from pathlib import Path

import aiohttp

from mirror.access import Keyring, Scope
from tests.access import Signer
from tests.process import Ended, mirror, serving
from tests.support import eventually, machine

NOWHERE = "http://127.0.0.1:9"


async def _key(*arguments: str, **env: str) -> Ended:
    return await mirror("key", *arguments, env=env)


def _secret(ended: Ended) -> str:
    assert ended.code == 0, ended.err
    return str(json.loads(ended.out)["secret"])


async def test_a_key_is_made_shown_once_listed_and_ended(tmp_path: Path) -> None:
    """The whole life of a key, before a mirror was ever started."""
    here = ("--store", str(tmp_path / "store"))
    made = await _key("add", "laptop", "--user", "me", "--expires", "30d", *here)
    assert made.code == 0, made.err
    secret = made.out.split()[0]
    assert secret.startswith("mk_")
    for said in ("shown once", "pull, api", "until 20", "now on pulling needs a key", "now on /api and /v1 need"):
        assert said in made.out
    listed = await _key("list", *here)
    assert [line.split()[1:6] for line in listed.out.splitlines()[1:2]] == [["laptop", "key", "me", "pull", "api"]]
    assert "a key is needed for: pull, api" in listed.out
    for text in (listed.out, (tmp_path / "store.state" / "keys.json").read_text()):
        assert secret not in text
    again = await _key("add", "laptop", *here)
    assert (again.code, again.out) == (1, "")
    assert again.err == "mirror: there is a key laptop already; revoke it, or take another name\n"
    assert "is revoked" in (await _key("revoke", "laptop", *here)).out
    assert json.loads((await _key("list", "--json", *here)).out)["keys"][0]["state"] == "revoked"
    asked = await _key("forget", "laptop", *here)
    assert asked.code == 1
    assert "Afterwards: everybody may pull; everybody may use /api and /v1" in asked.err
    assert "nothing was changed" in asked.err
    gone = await _key("forget", "laptop", "--yes", *here)
    assert (gone.code, "now everybody may pull" in gone.out) == (0, True)
    assert json.loads((await _key("list", "--json", *here)).out) == {"keys": [], "guarded": []}
    unknown = await _key("revoke", "laptop", *here)
    assert unknown.err == "mirror: there is no key laptop; mirror key list shows those there are\n"


async def test_wrong_uses_are_refused_with_a_sentence(tmp_path: Path) -> None:
    """And change nothing; above all a private key is not taken in."""
    private = tmp_path / "id_ed25519"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    for arguments, said, code in (
        (("add", "a", "--scope", "root"), "'root' is not one of", 2),
        (("add", "a", "--expires", "soon"), "--expires", 2),
        (("add", "a", "--expires", "9999999999d"), "--expires", 2),
        (("add", "a/b"), "cannot be the name", 1),
        (("add", "a", "--expires", "0s"), "for a second at least", 1),
        (("add", "a", "--ollama", str(private)), "not id_ed25519", 1),
        (("add", "a", "--ollama", str(tmp_path / "none")), "cannot read", 1),
    ):
        ended = await _key(*arguments, "--store", str(tmp_path / "store"))
        assert (ended.code, said in ended.err) == (code, True), (arguments, ended)
    assert not (tmp_path / "store.state").exists()


async def test_an_ollama_is_brought_in_by_its_public_key(tmp_path: Path) -> None:
    """There is no secret to carry: the file that Ollama has is enough."""
    public = tmp_path / "id_ed25519.pub"
    public.write_text(Signer().line + "\n")
    made = await _key("add", "laptop", "--scope", "pull", "--ollama", str(public), "--store", str(tmp_path / "store"))
    assert made.code == 0, made.err
    assert "It signs by itself" in made.out
    assert "From now on pulling needs a key" in made.out
    assert "mk_" not in made.out


async def test_commands_on_the_mirrors_machine_go_on_when_there_are_keys(tmp_path: Path) -> None:
    """They show that they can read the state folder; to a mirror that is named they show nothing of the kind."""
    here = ("--store", str(tmp_path / "store"))
    boss = _secret(await _key("add", "boss", "--scope", "admin", "--json", *here))
    await _key("add", "other", *here)
    async with serving(tmp_path / "store", NOWHERE) as (url, _):
        assert (await mirror("gc", "--yes", *here)).code == 0
        assert (await mirror("list", *here)).code == 0
        named = await mirror("gc", "--yes", "--server", url)
        assert (named.code, "this needs a key that is good for admin" in named.err) == (1, True)
        shown = await mirror("gc", "--yes", "--server", url, env={"OLLAMA_MIRROR_API_KEY": boss})
        assert shown.code == 0, shown.err


async def test_keys_of_a_running_mirror_by_its_admin_api(tmp_path: Path) -> None:
    """As from another machine: the same words, and what is changed holds at once."""
    boss = _secret(await _key("add", "boss", "--scope", "admin", "--json", "--store", str(tmp_path / "store")))
    public = tmp_path / "id_ed25519.pub"
    public.write_text(Signer().line + "\n")
    shown = {"OLLAMA_MIRROR_API_KEY": boss}
    async with serving(tmp_path / "store", NOWHERE) as (url, _), machine(url) as client:
        made = await _key("add", "chat", "--scope", "api", "--expires", "1h", "--json", "--server", url, **shown)
        secret = _secret(made)
        assert json.loads(made.out)["closes"] == ["api"]
        assert (await client.get("/api/tags")).status == 401
        assert (await client.get("/api/tags", Authorization=f"Bearer {secret}")).status == 200
        ollama = await _key("add", "laptop", "--ollama", str(public), "--server", url, **shown)
        assert "It signs by itself" in ollama.out
        listed = await _key("list", "--json", "--server", url, **shown)
        assert [one["name"] for one in json.loads(listed.out)["keys"]] == ["boss", "chat", "laptop"]
        assert secret not in listed.out
        assert (await _key("revoke", "chat", "--server", url, **shown)).code == 0
        assert (await client.get("/api/tags", Authorization=f"Bearer {secret}")).status == 401
        forgotten = await _key("forget", "chat", "--yes", "--json", "--server", url, **shown)
        assert json.loads(forgotten.out)["opens"] == ["api"]
        twice = await _key("forget", "chat", "--yes", "--server", url, **shown)
        assert (twice.code, twice.err) == (1, "mirror: there is no key chat; mirror key list shows those there are\n")
        nobody = await _key("list", "--server", url)
        assert (nobody.code, nobody.out) == (1, "")


async def test_what_is_changed_in_the_file_holds_a_second_later(tmp_path: Path) -> None:
    """A key that was stolen is ended where the file is, with no restart and no key for admins."""
    here = ("--store", str(tmp_path / "store"))
    secret = _secret(await _key("add", "chat", "--scope", "api", "--json", *here))
    async with serving(tmp_path / "store", NOWHERE) as (url, _), machine(url) as client:
        assert (await client.get("/api/tags", Authorization=f"Bearer {secret}")).status == 200
        assert (await _key("revoke", "chat", *here)).code == 0

        async def refused() -> bool:
            return (await client.get("/api/tags", Authorization=f"Bearer {secret}")).status == 401

        await eventually(refused)


async def test_bodies_that_are_none_are_problems(tmp_path: Path) -> None:
    """A sentence for each, and no key."""
    async with (
        serving(tmp_path / "store", NOWHERE) as (url, _),
        aiohttp.ClientSession(url) as session,
    ):
        for body, status, said in (
            ({}, 400, "no name"),
            ({"name": 5}, 400, "JSON object"),
            ({"name": "a", "more": 1}, 400, "JSON object"),
            ({"name": "a", "expires": "soon"}, 400, "soon"),
            ({"name": "a", "scopes": ["root"]}, 409, "no scope"),
            ({"name": "a", "scopes": [["pull"]]}, 409, "no scope"),
            ({"name": "a\n"}, 409, "cannot be the name"),
            ({"name": "a", "ollama": "ssh-rsa AAAA"}, 409, "no public ed25519 key"),
            ({"name": "a", "ollama": ""}, 409, "no public ed25519 key"),
            ({"name": "a", "expires": "0s"}, 409, "for a second at least"),
        ):
            async with session.post("/mirror/v1/keys", json=body) as answer:
                assert (answer.status, said in (await answer.json())["detail"]) == (status, True), body
        for query in ("forget=maybe", "dry_run=true"):
            async with session.delete(f"/mirror/v1/keys/a?{query}") as answer:
                assert answer.status == 400
        async with session.get("/mirror/v1/keys") as answer:
            assert await answer.json() == {"keys": [], "guarded": []}


async def test_a_mirror_does_not_start_with_keys_that_it_cannot_read(tmp_path: Path) -> None:
    """One sentence that says which file; to serve without keys would open what they closed."""
    state = tmp_path / "store.state"
    state.mkdir()
    Keyring(state).add("laptop", [Scope.PULL])
    (state / "keys.json").write_text('{"keys": [{}]}')
    ended = await mirror("serve", "--host", "127.0.0.1", "--port", "0", "--store", str(tmp_path / "store"))
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(f"mirror: cannot use the keys in {state}/keys.json: keys.0.")
    assert "mend the file" in ended.err


async def test_secrets_are_in_no_log_and_in_no_settings(tmp_path: Path) -> None:
    """Whoever may read logs may not therefore pull."""
    here = ("--store", str(tmp_path / "store"))
    secret = _secret(await _key("add", "chat", "--scope", "api", "--json", *here))
    log = tmp_path / "log"
    env = {"OLLAMA_MIRROR_LOG_FILE": str(log), "OLLAMA_MIRROR_LOG_LEVEL": "DEBUG", "OLLAMA_MIRROR_API_KEY": "hush-hush"}
    async with serving(tmp_path / "store", NOWHERE, env=env) as (url, _), machine(url) as client:
        for shown in (secret, "hush-hush", "wrong-key"):
            await client.get("/api/tags?ticket=wrong-ticket", Authorization=f"Bearer {shown}")
    text = log.read_text()
    assert "/api/tags" in text
    for hidden in (secret, "hush-hush", "wrong-key", "wrong-ticket"):
        assert hidden not in text
    shown_settings = await mirror("config", "show", *here, env=env)
    assert "hush-hush" not in shown_settings.out + shown_settings.err
    assert os.stat(tmp_path / "store.state" / "keys.json").st_mode & 0o077 == 0


async def test_the_key_of_an_ollama_closes_pulling_alone(tmp_path: Path) -> None:
    """It signs for tokens at the registry and nowhere else; the API's clients are others."""
    public = tmp_path / "id_ed25519.pub"
    public.write_text(f"{Signer().line}\n")
    made = await _key("add", "laptop", "--ollama", str(public), "--store", str(tmp_path / "store"), "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["key"]["scopes"] == ["pull"]
