"""Whatever is wrong with a tar, the store is afterwards what it was before."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from mirror.bundles import Bundle, import_tar
from mirror.errors import BadBundle
from mirror.values import MAX_MANIFEST_BYTES, Digest
from tests.bundled import (
    MANIFEST,
    MANIFEST_PATH,
    blob,
    entry,
    everything,
    good,
    in_chunks,
    index_of,
    manifest,
    opened,
    reserving,
    take,
    tar,
    tar_of,
)
from tests.stored import CONFIG, NAME, WEIGHTS, described, keep, manifest_of

GOOD = (blob(WEIGHTS), blob(CONFIG), manifest())
BLOB_PATH = f"blobs/{Digest.of(WEIGHTS).filename}"
SUMS = "".join(
    f"{Digest.of(content).hex}  {path}\n"
    for path, content in (
        (BLOB_PATH, WEIGHTS),
        (f"blobs/{Digest.of(CONFIG).filename}", CONFIG),
        (MANIFEST_PATH, MANIFEST.raw),
    )
)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header."""
    return entry("PaxHeaders/x", records, kind)


def record(key: str, value: str) -> bytes:
    """One record of it."""
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


def contents(**changes: object) -> bytes:
    """A ``mirror-bundle.json``."""
    said = {
        "format": 1,
        "models": [{"name": str(NAME), "digest": str(MANIFEST.digest), "size": MANIFEST.size}],
        "blobs": [{"digest": str(Digest.of(one)), "size": len(one)} for one in (WEIGHTS, CONFIG)],
        "left_out": [],
    }
    return entry("mirror-bundle.json", json.dumps(said | changes).encode())


def compressed(form: str) -> bytes:
    """A compressed tar."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{form}") as file:  # type: ignore[call-overload]
        file.addfile(tarfile.TarInfo("blobs"))
    return raw.getvalue()


def v7_links(path: str, target: str, kind: bytes) -> bytes:
    """A link of either kind."""
    return entry(path, kind=kind, linkname=target)


HOSTILE = {
    "nothing": (b"", "ends early: after 0 bytes"),
    "no tar": (b"x" * 5000, "not the beginning of a tar header"),
    "gzip": (gzip.compress(tar(*GOOD)), "compressed with gzip"),
    "a short gzip": (gzip.compress(b""), "compressed with gzip"),
    "bzip2": (compressed("bz2"), "compressed with bzip2"),
    "xz": (compressed("xz"), "compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd"),
    "no models": (tar(blob(WEIGHTS)), "no models"),
    "an empty tar": (tar(), "no models"),
    "an absolute path": (tar(*GOOD, entry("/etc/passwd")), "absolute path"),
    "an absolute folder": (tar(*GOOD, entry("/blobs", kind=tarfile.DIRTYPE)), "absolute path"),
    "a way out": (tar(*GOOD, entry("blobs/../../x")), "leads out"),
    "a way out among blobs": (tar(*GOOD, entry("blobs/..")), "leads out"),
    "a folder that leads out": (tar(*GOOD, entry("manifests/..", kind=tarfile.DIRTYPE)), "leads out"),
    "a roundabout path": (tar(*GOOD, entry("blobs//x")), "not written as"),
    "another roundabout path": (tar(*GOOD, entry("blobs/./x")), "not written as"),
    "a name without a name": (tar(*GOOD, entry("")), "not written as"),
    "a hard link": (tar(*GOOD, v7_links("blobs/x", BLOB_PATH, tarfile.LNKTYPE)), "hard link"),
    "a symbolic link": (tar(*GOOD, v7_links("blobs/x", "/etc/shadow", tarfile.SYMTYPE)), "--dereference"),
    "a link for a folder": (tar(v7_links("blobs", "/tmp", tarfile.SYMTYPE), *GOOD), "symbolic link"),
    "a long link": (tar(*GOOD, v7_links("blobs/x", "/" * 200, tarfile.SYMTYPE)), "link with a long name"),
    "a device": (tar(*GOOD, entry("blobs/x", kind=tarfile.CHRTYPE)), "a device"),
    "a disk": (tar(*GOOD, entry("blobs/x", kind=tarfile.BLKTYPE)), "a device"),
    "a pipe": (tar(*GOOD, entry("blobs/x", kind=tarfile.FIFOTYPE)), "a pipe"),
    "a sparse file": (tar(*GOOD, entry("blobs/x", kind=tarfile.GNUTYPE_SPARSE)), "sparse file"),
    "a volume's label": (tar(entry("x", kind=b"V"), *GOOD), "of type b'V'"),
    "another file": (tar(*GOOD, entry("README")), "no place in a bundle"),
    "a file too deep": (tar(*GOOD, entry(f"{MANIFEST_PATH}/x")), "no place in a bundle"),
    "a file not deep enough": (tar(*GOOD, entry("manifests/x")), "no place in a bundle"),
    "a file for a folder": (tar(entry("manifests"), *GOOD), "no place in a bundle"),
    "another folder": (tar(entry("tmp", kind=tarfile.DIRTYPE), *GOOD), "the folder 'tmp'"),
    "a folder among blobs": (tar(entry("blobs/x", kind=tarfile.DIRTYPE), *GOOD), "the folder 'blobs/x'"),
    "a folder for a manifest": (tar(entry(MANIFEST_PATH, kind=tarfile.DIRTYPE)), "the folder"),
    "a folder with content": (tar(entry("blobs", b"x", tarfile.DIRTYPE), *GOOD), "at most 0"),
    "an invalid name": (tar(*GOOD, manifest(path="manifests/a/b/c d/e")), "invalid model name"),
    "a long host": (tar(*GOOD, manifest(path=f"manifests/{'h' * 300}/b/c/d")), "no folder can be called"),
    "a manifest that is none": (tar(*GOOD[:2], entry(MANIFEST_PATH, b"{}")), "manifest of tiny:latest"),
    "a manifest too large": (tar(entry(MANIFEST_PATH, size=MAX_MANIFEST_BYTES + 1)), "at most 16777216"),
    "too many manifests": (
        tar(*(manifest(manifest_of(WEIGHTS, x="x" * (13 << 20)), f"{MANIFEST_PATH}{n}") for n in range(5))),
        "in all",
    ),
    "a model twice": (tar(*GOOD, manifest()), "tiny:latest is there twice"),
    "a model in two spellings": (tar(*GOOD, manifest(path=MANIFEST_PATH.replace("tiny", "TINY"))), "letter case"),
    "a tag in two spellings": (tar(*GOOD, manifest(path=MANIFEST_PATH.replace("latest", "Latest"))), "letter case"),
    "a blob twice": (tar(*GOOD, blob(CONFIG)), "is there twice"),
    "wrong bytes": (tar(entry(BLOB_PATH, WEIGHTS[::-1]), *GOOD[1:]), "hash to sha256:"),
    "a blob cut short": (tar(entry(BLOB_PATH, WEIGHTS[:-1]), *GOOD[1:]), "hash to sha256:"),
    "an empty blob that is not": (tar(entry(BLOB_PATH), *GOOD[1:]), "hash to sha256:"),
    "a negative size": (tar(*GOOD, entry("blobs/x", size=-512)), "negative size"),
    "a size beyond files": (tar(*GOOD, entry("blobs/x", size=1 << 62)), "at most"),
    "a size that lies": (tar(*GOOD, entry("blobs/x", size=1 << 40)), "ends early: after .* in the middle of 'blobs/x'"),
    "a size of a blob that lies": (tar(*GOOD[1:], entry(BLOB_PATH, WEIGHTS, size=1 << 50)), "no room|ends early"),
    "no end": (b"".join(GOOD), "ends early"),
    "half an end": (b"".join(GOOD) + bytes(512), "ends early"),
    "something after the end": (tar(*GOOD) + blob(b"x"), "follows the tar's end"),
    "an end in the middle": (b"".join(GOOD[:2]) + bytes(512) + GOOD[2] + bytes(1024), "follows the tar's end"),
    "a changed header": (tar(*GOOD).replace(b"0000644", b"0000777", 1), "bad checksum"),
    "a long name too long": (tar(*GOOD, entry("x", b"x" * 5000, tarfile.GNUTYPE_LONGNAME)), "at most 4096"),
    "a long name of nothing": (tar(*GOOD, entry("x", b"x\0", tarfile.GNUTYPE_LONGNAME)), "nothing follows"),
    "a long name that leads out": (
        tar(*GOOD, entry("x", b"/etc/passwd\0", tarfile.GNUTYPE_LONGNAME), entry("blobs/x")),
        "absolute path",
    ),
    "a giant pax header": (tar(entry("x", kind=tarfile.XHDTYPE, size=1 << 33)), "at most 65536"),
    "a pax path": (tar(pax(record("path", "/etc/passwd")), *GOOD), "changes 'path'"),
    "a pax link": (tar(pax(record("linkpath", "/etc/passwd")), *GOOD), "changes 'linkpath'"),
    "a pax size": (tar(pax(record("size", "7")), *GOOD), "changes 'size'"),
    "a global pax size": (tar(pax(record("size", "7"), tarfile.XGLTYPE), *GOOD), "changes 'size'"),
    "pax sparseness": (tar(pax(record("mtime", "1") + record("GNU.sparse.major", "1")), *GOOD), "GNU.sparse"),
    "pax without records": (tar(pax(b"nonsense"), *GOOD), "not made of records"),
    "pax of length 0": (tar(pax(b"0 a=b\n"), *GOOD), "not made of records"),
    "pax that reaches out": (tar(pax(b"99 a=b\n"), *GOOD), "not made of records"),
    "a missing blob": (tar(*GOOD[1:]), f"nowhere to be found: {Digest.of(WEIGHTS)} of tiny:latest$"),
    "many missing blobs": (
        tar(manifest(manifest_of(*(bytes([n]) for n in range(7)))), blob(CONFIG)),
        "of tiny:latest and 2 more",
    ),
    "another size": (
        tar(blob(WEIGHTS), manifest(manifest_of(layers=[described(WEIGHTS, size=5)], config=None))),
        "has 5 bytes; it has 32000",
    ),
    "another size of what is here": (
        tar(manifest(manifest_of(layers=[described(b"here", size=5)], config=None))),
        "has 5 bytes; it has 4",
    ),
    "a child without its blob": (
        tar(blob(MANIFEST.raw), blob(CONFIG), manifest(index_of(MANIFEST))),
        f"nowhere to be found: {Digest.of(WEIGHTS)}",
    ),
    "sums of another blob": (
        tar(*GOOD, entry("SHA256SUMS", SUMS.replace("blobs/sha256-", "blobs/", 1).encode())),
        "SHA",
    ),
    "a sum too few": (tar(*GOOD, entry("SHA256SUMS", SUMS.partition("\n")[2].encode())), f"came: {BLOB_PATH}"),
    "another sum": (tar(*GOOD, entry("SHA256SUMS", SUMS.replace(MANIFEST.digest.hex, "0" * 64).encode())), "disagrees"),
    "sums that are none": (tar(entry("SHA256SUMS", b"hello\n"), *GOOD), "sha256sum does not write: 'hello'"),
    "sums twice": (tar(*2 * [entry("SHA256SUMS", SUMS.encode())], *GOOD), "SHA256SUMS is there twice"),
    "contents twice": (tar(contents(), contents(), *GOOD), "mirror-bundle.json is there twice"),
    "contents that are none": (tar(entry("mirror-bundle.json", b"["), *GOOD), "does not say"),
    "contents too deep": (tar(entry("mirror-bundle.json", b"[" * 100_000), *GOOD), "does not say"),
    "contents too large": (tar(entry("mirror-bundle.json", size=17 << 20)), "at most 16777216"),
    "contents of tomorrow": (tar(contents(format=2), *GOOD), "format 2; this mirror knows format 1"),
    "contents with a model more": (tar(contents(models=[]), *GOOD), f"disagrees with what came: {NAME}"),
    "contents with a blob less": (tar(contents(blobs=[]), *GOOD), "mirror-bundle.json disagrees"),
    "contents beyond the disk": (
        tar(contents(blobs=[{"digest": f"sha256:{'a' * 64}", "size": 1 << 60}]), *GOOD),
        "no room",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_it_is_refused_with_a_clear_sentence_and_nothing_is_changed(tmp_path: Path, what: str) -> None:
    """Whoever can send a bundle must not get further than this."""
    raw, why = HOSTILE[what]
    async with opened(tmp_path) as store:
        await keep(store, NAME.with_tag("before"), b"here")
        before, models = everything(tmp_path), [*store.complete]
        with pytest.raises(Exception, match=why) as refused:
            await take(store, raw)
        assert type(refused.value).__name__ in {"BadBundle", "StoreFull"}
        assert everything(tmp_path) == before
        assert [*store.complete] == models
        assert not [*store.staged]
        assert store.room.shortage({}) is None
        assert not [*store.room._promises]


@pytest.mark.parametrize("records", [record("mtime", "1.5") + record("comment", "sizeable"), b""])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
async def test_pax_headers_that_change_nothing_are_passed_over(tmp_path: Path, records: bytes, kind: bytes) -> None:
    """Many tars write times so."""
    async with opened(tmp_path) as store:
        assert (await take(store, tar(pax(records, kind), *GOOD))).new == 2


async def test_what_a_bundle_says_of_itself_may_be_missing_or_anywhere(tmp_path: Path) -> None:
    """People unpack and pack again."""
    for number, raw in enumerate([tar(*GOOD), tar(*GOOD, contents(), entry("SHA256SUMS", SUMS.encode()))]):
        async with opened(tmp_path / str(number)) as store:
            assert (await take(store, raw)).new == 2


async def test_every_cut_is_noticed(tmp_path: Path) -> None:
    """A copy to a full USB stick ends anywhere."""
    async with opened(tmp_path / "a") as store:
        await keep(store, NAME, WEIGHTS)
        bundle = Bundle.of(store, [NAME])
        raw, end = await tar_of(bundle), bundle.members.end + 1024
    async with opened(tmp_path / "b") as store:
        before = everything(tmp_path / "b")
        for cut in sorted({*range(0, end, 509), *range(0, end, 512), end - 1}):
            with pytest.raises(BadBundle, match="ends early"):
                await take(store, raw[:cut])
            assert everything(tmp_path / "b") == before
        assert (await take(store, raw[:end])).new == 2


async def test_progress_tells_bytes_that_came(tmp_path: Path) -> None:
    """Of how many is known for a file, and not for a pipe."""
    seen: list[tuple[int, int | None]] = []
    raw = await good(tmp_path / "a")
    async with opened(tmp_path / "b") as store:
        await import_tar(
            in_chunks(raw, 10_000), store, reserving(store), lambda *step: seen.append(step), size=len(raw)
        )
    assert seen == [(min(at, len(raw)), len(raw)) for at in range(10_000, len(raw) + 10_000, 10_000)]
