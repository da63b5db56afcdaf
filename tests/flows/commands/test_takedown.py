"""Takedown: what is named stays out of every corpus, whatever it becomes; what was done can be told and undone."""

import json
import shutil

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import runs
from flows.names import find_run
from pipeline import purge, takedowns
from pipeline.crawl.seal import URL_INDEX
from pipeline.documents import read_table, write_table
from pipeline.engine import upkeep
from pipeline.engine.store import Store, read_manifest
from tests.flows.conftest import PAGES, STAGES, Little, text_of

ORIGINAL, COPY, NEAR = "http://host1.localhost/1", "http://mirror.localhost/copy", "http://mirror.localhost/near"


def take_down(little: Little, what: str, *more: str) -> dict:
    return little.asked("takedown", what, "--reason", "its author asked", *more)


def packed(little: Little) -> set[str]:
    folders = [part.folder for part in little.run()["pack"].parts]
    return {url for folder in folders for split in ("train", "val") for url in urls(folder / f"{split}.arrow")}


def urls(path) -> list[str]:
    return read_table(path, ["url"])["url"].to_pylist()


def reasons(little: Little) -> dict[str, str | None]:
    little.run()
    corpus = runs.corpus_of(little.store, find_run(little.store, None, "pack"))
    rows = (row for part in range(len(corpus)) for row in corpus.fates(part, texts=False).to_pylist())
    return {row["url"]: row["reason"] for row in rows}


def test_a_page_and_its_copies_elsewhere_leave_the_corpus(copied):
    told = take_down(copied, ORIGINAL)
    assert {row["url"]: row["copy"] for row in told["documents"]} == {ORIGINAL: False, COPY: True}
    after = reasons(copied)
    assert (after[ORIGINAL], after[COPY]) == ("taken_down", "copy_of_takedown")


def test_copies_stay_where_that_is_asked_for(copied):
    take_down(copied, ORIGINAL, "--keep-copies")
    assert reasons(copied)[ORIGINAL] == "taken_down"
    assert COPY in packed(copied)


def test_near_copies_are_told_of_and_taken_down_where_that_is_asked_for(copied):
    assert [row["url"] for row in take_down(copied, ORIGINAL)["near_copies"]] == [NEAR]
    assert NEAR in packed(copied)
    take_down(copied, ORIGINAL, "--near")
    assert reasons(copied)[NEAR] == "taken_down"


def test_a_host_and_a_documents_id_are_names_too(copied):
    take_down(copied, "host2.localhost")
    take_down(copied, copied.asked("trace", "http://host3.localhost/3")["documents"][0]["doc_id"])
    gone = {url for url, reason in reasons(copied).items() if reason == "taken_down"}
    assert gone == {url for url in PAGES if "host2" in url} | {"http://host3.localhost/3"}


def test_an_edit_of_the_page_does_not_bring_it_back(copied, tmp_path):
    take_down(copied, ORIGINAL)
    edited = PAGES | {ORIGINAL: text_of("bridge", 99)}
    (tmp_path / "pages.jsonl").write_text("\n".join(json.dumps({"url": u, "text": t}) for u, t in edited.items()))
    config = tmp_path / "little.toml"
    config.write_text(copied.config.read_text().replace(str(copied.config.parent), str(tmp_path)))
    assert reasons(Little(config, copied.store))[ORIGINAL] == "taken_down"


def test_a_new_way_to_extract_does_not_bring_it_back(copied, tmp_path):
    take_down(copied, ORIGINAL)
    config = tmp_path / "little.toml"
    config.write_text(copied.config.read_text() + '\n[extract]\nextractor = "accurate"\n')
    after = reasons(Little(config, copied.store))
    assert (after[ORIGINAL], after[COPY]) == ("taken_down", "copy_of_takedown")


def test_only_the_shards_concerned_are_packed_again_and_the_others_keep_their_bytes(copied):
    before = copied.run()["pack"]
    told = take_down(copied, "http://host0.localhost/8")
    after = copied.run()["pack"]
    assert len(told["documents"]) == 1
    assert after.manifest["run"]["parts_made"] == 1
    changed = [new for old, new in zip(before.parts, after.parts, strict=True) if old != new]
    assert len(changed) == 1 < len(after.parts)


def test_a_takedown_makes_what_a_mill_from_scratch_makes(copied, tmp_path):
    take_down(copied, ORIGINAL)
    scratch = Little(copied.config, Store(tmp_path / "scratch"))
    shutil.copytree(copied.store.root / "snapshots", scratch.store.root / "snapshots")
    shutil.copy(copied.store.tombstones, scratch.store.tombstones)
    assert copied.digests() == scratch.digests()


def test_a_lifted_takedown_gives_the_same_digests_and_packs_nothing(copied):
    before = copied.digests()
    take_down(copied, ORIGINAL)
    assert copied.digests() != before
    copied.command("takedown", ORIGINAL, "--undo")
    manifests = set((copied.store.root / "artifacts" / "pack").iterdir())
    assert copied.digests() == before
    assert set((copied.store.root / "artifacts" / "pack").iterdir()) == manifests


names = st.sampled_from([*sorted(PAGES)[::5], ORIGINAL, COPY, "mirror.localhost", "host2.localhost"])


@pytest.mark.slow
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=2))
def test_whatever_is_taken_down_and_lifted_in_the_end_all_is_as_before(steps, little, tmp_path_factory):
    mill = little.copy(tmp_path_factory.mktemp("property"))
    for what, run in steps:
        take_down(mill, what)
        if run:
            mill.run()
    for row in mill.asked("takedown")["takedowns"]:
        mill.command("takedown", str(row["takedown"]), "--undo")
    assert mill.digests() == {stage: little.run()[stage].digest for stage in STAGES}


def test_the_list_only_grows_and_tells_who_when_and_why(copied):
    take_down(copied, ORIGINAL)
    first = copied.store.tombstones.read_bytes()
    take_down(copied, "host2.localhost")
    copied.command("takedown", "1", "--undo", "--reason", "a mistake")
    assert copied.store.tombstones.read_bytes().startswith(first)
    lifted, standing = copied.asked("takedown")["takedowns"]
    assert (lifted["reason"], lifted["undo"]["reason"]) == ("its author asked", "a mistake")
    assert lifted["url"] == [ORIGINAL]
    assert "undo" not in standing


def test_where_a_url_led_is_taken_down_with_it(copied):
    folder = copied.store.root / "snapshots" / "elsewhere" / "0000"
    folder.mkdir(parents=True)
    rows = [dict.fromkeys(URL_INDEX.names) | {"url": ORIGINAL, "requested_url": "http://old.localhost/"}]
    write_table(pa.Table.from_pylist(rows, URL_INDEX), folder / "urls.arrow")
    assert ORIGINAL in take_down(copied, "http://old.localhost/")["url"]


def test_a_dry_run_records_nothing(copied):
    assert take_down(copied, ORIGINAL, "--dry-run")["takedown"] is None
    assert not copied.store.tombstones.exists()


def test_a_page_that_is_in_no_snapshot_is_withheld_should_it_come(copied):
    assert take_down(copied, "http://later.localhost/a b")["url"] == [
        "http://later.localhost/a b", "http://later.localhost/a%20b"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((ORIGINAL,), "takedown needs a --reason"),
        (("host1.localhost:80", "--reason", "x"), "a host without port"),
        (("nothing/here", "--reason", "x"), "is no URL, host or document's id"),
        (("0" * 32, "--reason", "x"), "has the id"),
        (("7", "--undo"), "No takedown in force is 7"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_recorded(copied, capsys, arguments, sentence):
    if arguments[0] == "host1.localhost:80":
        arguments = ("host1.localhost:8080", *arguments[1:])
    copied.command("takedown", *arguments, code=2)
    assert sentence in capsys.readouterr().err
    assert not copied.store.tombstones.exists()


def holders(store: Store, text: str) -> list[str]:
    """Files of a store that hold a text, whether as it is or within Arrow and gzip."""
    found = []
    for path in sorted(path for path in store.root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.name == "documents.arrow":
            data = "\n".join(read_table(path)["text"].to_pylist()).encode()
        elif path.suffix == ".gz":
            import gzip

            data = gzip.decompress(data)
        if text.encode() in data:
            found.append(store.relative(path))
    return found


def test_a_purge_leaves_no_byte_of_the_page_and_of_its_copies_in_the_store(copied):
    text = "In 1537 the kettle was mended"
    assert len(holders(copied.store, text)) > 3
    take_down(copied, ORIGINAL, "--near", "--purge")
    assert holders(copied.store, text) == []


def test_a_purge_reaches_the_excerpts_that_deduplication_shows(copied):
    manifest = copied.run()["deduplicate"].manifest
    assert any(cluster["url"] == ORIGINAL for cluster in manifest["stats"]["largest_clusters"])
    take_down(copied, ORIGINAL, "--purge")
    assert not [path for path in copied.store.root.glob("artifacts/**/manifest.json") if ORIGINAL in path.read_text()]


def test_a_purge_records_the_hole_and_leaves_a_sound_snapshot(copied):
    (folder,) = (copied.store.root / "snapshots").glob("*/0000")
    before = read_manifest(folder)
    take_down(copied, ORIGINAL, "--purge")
    after = read_manifest(folder)
    assert [hole["records"] for hole in after["holes"]] == [2]
    assert after["holes"][0]["digest_before"] == before["digest"]
    assert after["stats"]["outcomes"] == {"stored": len(PAGES) - 2, "purged": 2}
    hosts = read_table(folder / "hosts.arrow").to_pylist()
    assert sum(host["bytes"] for host in hosts) == after["stats"]["bytes"]
    assert {host["host"]: dict(host["outcomes"]) for host in hosts}["mirror.localhost"] == {"purged": 1, "stored": 1}
    removed = sum(len(PAGES[url].encode()) for url in (ORIGINAL, COPY))
    assert before["stats"]["bytes"] - after["stats"]["bytes"] == removed
    index = {row["url"]: row for row in read_table(folder / "urls.arrow").to_pylist()}
    assert (index[ORIGINAL]["outcome"], index[ORIGINAL]["payload_digest"]) == ("purged", None)
    assert upkeep.verify(copied.store, full=True)[0] == []


def test_a_purge_goes_through_all_snapshots_of_a_source_and_keeps_their_chain(copied):
    copied.run(force="scrape")
    take_down(copied, ORIGINAL, "--near", "--purge")
    first, second = (read_manifest(folder) for folder in sorted((copied.store.root / "snapshots").glob("*/[0-9]*")))
    assert [len(manifest["holes"]) for manifest in (first, second)] == [1, 1]
    assert second["parent"] == first["digest"]
    assert holders(copied.store, "In 1537 the kettle was mended") == []


def test_after_a_purge_the_other_pages_stand_where_the_index_says(copied):
    from pipeline.crawl.warc import read_member

    take_down(copied, "host2.localhost", "--purge")
    (folder,) = (copied.store.root / "snapshots").glob("*/0000")
    for row in read_table(folder / "urls.arrow").to_pylist():
        if row["outcome"] == "stored":
            with (folder / f"part-{row['part']:05d}" / "pages.warc.gz").open("rb") as file:
                file.seek(row["offset"])
                record = read_member(file.read(row["length"]))
            assert f"WARC-Target-URI: {row['url']}\r\n".encode() in record
    assert packed(copied).isdisjoint(url for url in PAGES if "host2" in url)


def test_a_purged_store_gives_what_a_mill_from_its_snapshots_gives(copied, tmp_path):
    take_down(copied, ORIGINAL, "--purge")
    scratch = Little(copied.config, Store(tmp_path / "scratch"))
    shutil.copytree(copied.store.root / "snapshots", scratch.store.root / "snapshots")
    shutil.copy(copied.store.tombstones, scratch.store.tombstones)
    assert copied.digests() == scratch.digests()


def test_a_purge_takes_what_a_killed_run_left_half_done_and_what_was_put_aside(copied):
    for name in ("work/extract-0/1", "aside/extract/2.0", "work/pretrain-0/state"):
        (copied.store.root / name).mkdir(parents=True)
    take_down(copied, ORIGINAL, "--purge")
    assert not list((copied.store.root / "aside").iterdir())
    assert [path.name for path in (copied.store.root / "work").iterdir()] == ["pretrain-0"]


def test_a_purge_keeps_what_it_does_not_concern(copied):
    take_down(copied, "http://host0.localhost/8", "--purge")
    assert copied.run()["extract"].manifest["run"]["parts_made"] == 1


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_killed_purge_is_finished_by_the_next_run(copied, moved):
    stones = takedowns.with_digests(copied.store, purge.Tombstones([ORIGINAL], [], [], []))
    by_shard = takedowns.reached(takedowns.document_shards(copied.store), stones)
    documents = [document for found in by_shard.values() for document in found]
    takedowns.record(copied.store, stones, {"reason": "x", "at": "", "purge": True})
    purge.purge_snapshots(copied.store, 1, stones, documents)
    (aside,) = (copied.store.root / "snapshots").glob("*/.purge-*")
    for path in sorted(path for path in aside.rglob("*") if path.suffix == ".gz" or path.name == "urls.arrow")[:moved]:
        path.replace(aside.with_name("0000") / path.relative_to(aside))
    assert ORIGINAL not in packed(copied)
    assert upkeep.verify(copied.store, full=True)[0] == []
    assert not aside.exists()


def test_a_purge_that_was_not_prepared_to_its_end_is_forgotten(copied):
    (folder,) = (copied.store.root / "snapshots").glob("*/0000")
    aside = folder.with_name(".purge-0000")
    (aside / "part-00000").mkdir(parents=True)
    (aside / "part-00000" / "pages.warc.gz").write_bytes(b"half")
    before = read_manifest(folder)
    copied.run()
    assert read_manifest(folder) == before
    assert not aside.exists()


def test_a_purge_that_was_lifted_says_that_the_pages_are_gone(copied):
    take_down(copied, ORIGINAL, "--purge")
    assert "can only be fetched again" in copied.command("takedown", "1", "--undo")
    assert ORIGINAL not in packed(copied)
