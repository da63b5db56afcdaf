"""extract: every page is a row, in documents or in rejects, and depends on its record alone."""

import gzip
import io
import os
import random
import re
import signal
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastwarc.warc import WarcRecord, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents import DOCUMENTS, REJECTS, doc_id, read_table
from pipeline.extract import REASONS, ExtractConfig, extract
from pipeline.extraction import isolation as isolation
from pipeline.extraction.charset import codec_for, decode
from pipeline.extraction.isolation import Limits
from pipeline.extraction.page import Page, clean, page_text

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside the project")

CC = "https://www.creativecommons.org"
PARAGRAPH = "A paragraph of plain words that any extractor keeps, because it is long and ends well. " * 3


def page(body: str, lang: str = "en", head: str = "") -> bytes:
    return f'<html lang="{lang}"><head><title>A  title</title>{head}</head><body>{body}</body></html>'.encode()


def record(
    url: str,
    body: bytes,
    content_type: str = "text/html; charset=utf-8",
    kind: WarcRecordType = WarcRecordType.response,
    headers: str = "",
    status: str = "200 OK",
) -> bytes:
    warc = WarcRecord()
    warc.init_headers(kind)
    warc.headers["WARC-Target-URI"] = url
    if kind is WarcRecordType.conversion:
        warc.headers["Content-Type"] = content_type
        warc.set_bytes_content(body)
    else:
        warc.headers["Content-Type"] = "application/http;msgtype=response"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        warc.set_bytes_content(head.encode() + body)
    out = io.BytesIO()
    warc.write(out)
    return gzip.compress(out.getvalue(), mtime=0)


def run(folder: Path, warc: bytes, config: ExtractConfig | None = None) -> tuple[list[dict], list[dict], dict]:
    pages, out = folder / "pages", folder / "out"
    pages.mkdir(parents=True)
    out.mkdir()
    (pages / "pages.warc.gz").write_bytes(warc)
    stats = extract(out=out, config=config or ExtractConfig(), pages=pages, source="web")
    documents, rejects = read_table(out / "documents.arrow"), read_table(out / "rejects.arrow")
    assert documents.schema == DOCUMENTS
    assert rejects.schema == REJECTS
    assert stats["rows"] == documents.num_rows
    assert stats["records"] == documents.num_rows + rejects.num_rows
    assert sum(stats["rejected"].values()) == rejects.num_rows
    assert set(stats["rejected"]) <= set(REASONS)
    return documents.to_pylist(), rejects.to_pylist(), stats


@pytest.mark.parametrize("extractor", ["fast", "accurate"])
def test_a_page_becomes_a_document_with_what_the_page_says_of_itself(tmp_path: Path, extractor: str) -> None:
    license_link = '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
    body = page(f"<article><h1>Heading</h1><p>{PARAGRAPH}</p></article>", "de-AT", license_link)
    [document], rejects, stats = run(tmp_path, record("http://a/x", body), ExtractConfig(extractor=extractor))
    assert not rejects
    assert PARAGRAPH.strip() in document["text"]
    assert document | {"doc_id": None, "text": None} == {
        "doc_id": None, "url": "http://a/x", "source": "web", "language_declared": "de",
        "license": "https://creativecommons.org/licenses/by/4.0/", "title": "A title", "text": None,
    }  # fmt: skip
    assert document["doc_id"] == doc_id("http://a/x", document["text"])
    assert stats["bytes_in"] == len(body)
    assert stats["bytes_out"] == len(document["text"].encode())


def test_plain_text_and_conversion_records_pass_as_they_are(tmp_path: Path) -> None:
    text = "First line.\r\n\tSecond, indented."
    warc = record("http://a/t", text.encode(), "text/plain") + record(
        "http://a/c", text.encode(), "text/plain", WarcRecordType.conversion
    )
    documents, rejects, _ = run(tmp_path, warc)
    assert [row["text"] for row in documents] == ["First line.\n\tSecond, indented."] * 2
    assert not rejects


def test_content_language_counts_where_the_page_is_silent(tmp_path: Path) -> None:
    warc = record("http://a/", b"<p>Bonjour tout le monde</p>", headers="Content-Language: FR-ca\r\n")
    assert run(tmp_path, warc)[0][0]["language_declared"] == "fr"


def test_compressed_bodies_are_decompressed(tmp_path: Path) -> None:
    body = gzip.compress(page(f"<p>{PARAGRAPH}</p>"), mtime=0)
    [document], _, _ = run(tmp_path, record("http://a/", body, headers="Content-Encoding: gzip\r\n"))
    assert PARAGRAPH.strip() in document["text"]


def test_every_refused_page_has_its_reason(tmp_path: Path) -> None:
    bomb = gzip.compress(b"a" * 200_000)
    warc = b"".join(
        [
            record("http://a/empty", page("<p> </p>")),
            record("http://a/image", b"\x89PNG", "image/png"),
            record("http://a/large", b"x" * 100_001, "text/plain"),
            record("http://a/bomb", bomb, headers="Content-Encoding: gzip\r\n"),
            record("http://a/binary", bytes(range(128, 256)) * 20, "text/plain; charset=utf-8"),
            record("http://a/gone", page(PARAGRAPH), status="404 Not Found"),
        ]
    )
    documents, rejects, stats = run(tmp_path, warc, ExtractConfig(max_body_bytes=100_000))
    assert not documents
    assert {row["url"].rpartition("/")[2]: row["reason"] for row in rejects} == {
        "empty": "empty", "image": "not_text", "large": "too_large", "bomb": "too_large", "binary": "undecodable",
        "gone": "http_status",
    }  # fmt: skip
    assert stats["rejected"]["too_large"] == 2


def test_records_that_are_no_pages_are_no_rows(tmp_path: Path) -> None:
    warc = record("http://a/", b"", kind=WarcRecordType.request) + record("http://a/", page(PARAGRAPH))
    documents, rejects, _ = run(tmp_path, warc)
    assert (len(documents), len(rejects)) == (1, 0)


def test_a_broken_record_is_a_row_and_the_good_ones_behind_it_are_read(tmp_path: Path) -> None:
    first, broken, last = (record(f"http://a/{name}", page(PARAGRAPH + name)) for name in ("1", "2", "3"))
    broken = broken[: len(broken) // 2] + bytes(b ^ 0xFF for b in broken[len(broken) // 2 :])
    documents, rejects, _ = run(tmp_path, first + broken + last)
    assert [row["url"] for row in documents] == ["http://a/1", "http://a/3"]
    assert [row["reason"] for row in rejects] == ["broken_record"]


def test_a_record_cut_short_is_a_row_with_its_url(tmp_path: Path) -> None:
    whole = record("http://a/", page(PARAGRAPH * 50 + "".join(map(str, range(5000)))))
    documents, rejects, _ = run(tmp_path, whole[:-2000])
    assert not documents
    assert {row["reason"] for row in rejects} == {"broken_record"}


def test_a_file_that_is_no_warc_gives_no_document_and_a_row(tmp_path: Path) -> None:
    documents, rejects, _ = run(tmp_path, b"garbage" * 1000)
    assert not documents
    assert [row["reason"] for row in rejects] == ["broken_record"]


@needs_shared
@pytest.mark.parametrize(
    ("name", "rows", "rejected"),
    [
        ("example.warc.gz", 1, {}),
        ("example-bad-non-chunked.warc.gz", 1, {}),
        ("example-digest.warc", 0, {}),  # holds requests only
        ("example-iana.org-chunked.warc", 1, {}),
        ("example-trunc.warc", 1, {"broken_record": 1}),
        ("whirlwind.warc", 1, {}),
        ("whirlwind.warc.gz", 1, {}),
        ("whirlwind.warc.wat", 0, {}),
        ("whirlwind.warc.wet", 1, {}),
    ],
)
def test_archives_of_others_are_read(tmp_path: Path, name: str, rows: int, rejected: dict[str, int]) -> None:
    _, _, stats = run(tmp_path, (SHARED / "warc" / name).read_bytes())
    assert (stats["rows"], stats["rejected"]) == (rows, rejected)


def test_an_empty_part_gives_empty_files(tmp_path: Path) -> None:
    assert run(tmp_path, b"")[2]["rows"] == 0


def test_the_same_record_gives_the_same_row_whatever_stands_around_it(tmp_path: Path) -> None:
    one, other = record("http://a/1", page(f"<p>{PARAGRAPH}</p>")), record("http://a/2", page("<li>menu"))
    alone = run(tmp_path / "alone", one)[0][0]
    assert run(tmp_path / "after", other * 3 + one)[0][-1] == alone
    again = tmp_path / "again"
    run(again, one)
    for name in ("documents.arrow", "rejects.arrow"):
        assert (again / "out" / name).read_bytes() == (tmp_path / "alone" / "out" / name).read_bytes()


def test_a_pydoc_page_keeps_its_text_and_indentation(tmp_path: Path) -> None:
    import pydoc
    import textwrap

    html = pydoc.HTMLDoc()
    body = html.page("textwrap", html.document(textwrap, "textwrap")).encode()
    [document], _, _ = run(tmp_path, record("http://a/", body))
    lines = document["text"].split("\n")
    assert "  width (default: 70)" in lines
    assert "Remove any common leading whitespace from every line in `text`." in lines
    assert "\u00a0" not in document["text"]
    assert not any(line.startswith(" ") and "\t" in line for line in lines)


@given(st.text(st.characters(codec="utf-8")))
def test_clean_text_is_nfc_without_control_characters_and_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in cleaned)
    assert "\n\n\n" not in cleaned
    assert clean(cleaned) == cleaned


@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", "latin1", "gbk", "utf-16", "no-such", "hex"]))
def test_any_bytes_decode_to_text_or_none(body: bytes, charset: str | None) -> None:
    text = decode(body, charset)
    assert text is None or isinstance(text, str)


def test_a_declared_charset_decides_and_utf_8_wins_over_a_wrong_default() -> None:
    assert decode("Grüße".encode("cp1252"), "ISO-8859-1") == "Grüße"
    assert decode('<meta charset="windows-1251">Привет'.encode("cp1251")) == '<meta charset="windows-1251">Привет'
    assert decode("Grüße".encode(), "ISO-8859-1") == "Grüße"
    assert decode("\ufeffGrüße".encode("utf-16-le"), "utf-8") == "Grüße"


NAMES = {"MacCyrillic": "mac_cyrillic", "MacRoman": "mac_roman"}
"""Python's names of charsets that it does not know by their folder's."""

DECLARATION = re.compile(rb"(charset|encoding)(\s*=\s*[\"']?)[a-zA-Z0-9_.:-]+", re.IGNORECASE)

UNDECIDABLE = {"MacRoman/ioreg_output.txt"}
"""No label, and one byte beyond ASCII in 748,505: a Euro sign or a currency sign, nothing tells which."""


def labelled_pages() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes and right text of every page of known charset; the folder names it, perhaps with a language."""
    for path in sorted((SHARED / "charset").glob("*/*")):
        folder = path.parent.name
        parts = folder.split("-")
        label = NAMES.get(folder, "-".join(parts[: 3 if parts[0] == "iso" else 2]))
        # As the web understands the label: Windows' Shift_JIS, GB 18030 for GB2312 (WHATWG Encoding).
        text = path.read_bytes().decode(codec_for(label) or label, errors="replace").lstrip("\ufeff")
        yield f"{folder}/{path.name}", path.read_bytes(), text


@needs_shared
def test_shared_pages_decode_as_labelled() -> None:
    wrong = {name for name, body, text in labelled_pages() if decode(body) != text}
    assert wrong == UNDECIDABLE


@needs_shared
def test_shared_pages_decode_alike_when_they_do_not_declare_their_charset() -> None:
    wrong = set()
    for name, body, text in labelled_pages():
        silent = DECLARATION.sub(rb"\1\2x", body)
        expected = text if silent == body else DECLARATION.sub(rb"\1\2x", text.encode()).decode()
        if decode(silent) != expected:
            wrong.add(name)
    assert wrong == UNDECIDABLE


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("안녕하세요. 이 글은 조합형으로 쓴 한국어 문장입니다. 읽을 수 있어야 합니다.", "johab"),
        ("안녕하세요. 이 글은 완성형으로 쓴 한국어 문장입니다. 읽을 수 있어야 합니다.", "euc_kr"),
        ("Це речення написане українською мовою, її літери є особливими, і їх треба читати правильно.", "koi8_u"),
        ("Это предложение написано на русском языке, и его буквы надо читать правильно.", "koi8_r"),
        ("Ο Άρης και η Άννα πήγαν στην Άνδρο. Άλλη μια φορά ήταν όλα όμορφα.", "iso8859_7"),
        ("Ο Άρης και η Άννα πήγαν στην Άνδρο. Άλλη μια φορά ήταν όλα όμορφα.", "cp1253"),
    ],
)
def test_a_charset_that_nothing_declares_is_told_from_its_neighbour(text: str, charset: str) -> None:
    assert decode(text.encode(charset), markup=False) == text


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["fast", "accurate"])
def test_a_page_gives_the_same_whatever_was_read_before_it(extractor: str) -> None:
    config = ExtractConfig(extractor=extractor)
    pages = [
        Page(f"http://a/{path.name}", path.read_bytes(), "text/html", None, None)
        for path in sorted((SHARED / "extraction" / "html").iterdir())
    ]
    shuffled = random.Random(0).sample(pages, len(pages))
    results = [{page.url: page_text(page, config) for page in order} for order in (pages, shuffled)]
    assert results[0] == results[1]


COMPLEX = {
    "deep": "<div>" * 50_000,
    "deep lists": "<ul><li>" * 20_000,
    "many elements": "<p>x" * 400_000,
    "many attributes": "<p " + " ".join(f"a{n}=''" for n in range(50_000)) + ">",
}


@pytest.mark.parametrize("extractor", ["fast", "accurate"])
def test_what_would_take_a_library_too_long_is_refused_beforehand(tmp_path: Path, extractor: str) -> None:
    warc = b"".join(record(f"http://a/{name}", markup.encode()) for name, markup in COMPLEX.items())
    started = time.process_time()
    documents, rejects, _ = run(tmp_path, warc, ExtractConfig(extractor=extractor))
    assert not documents
    assert {row["reason"] for row in rejects} == {"too_complex"}
    assert time.process_time() - started < 5


def test_a_text_that_would_take_too_long_to_normalise_is_refused(tmp_path: Path) -> None:
    marks = record("http://a/marks", ("a" + "\u0315\u0300" * 500_000).encode(), "text/plain; charset=utf-8")
    _, rejects, _ = run(tmp_path, marks)
    assert rejects == [
        {"url": "http://a/marks", "reason": "too_complex", "detail": "1000000 combining characters in a row"}
    ]


@pytest.mark.parametrize(
    "markup",
    [
        "<p>A line of text, and no end tag.\n" * 20_000,
        "<ul>" + "<li>An item of text, and no end tag.\n" * 20_000 + "</ul>",
        "<table>" + "<tr><td>1<td>2\n" * 20_000 + "</table>",
        "<div><b>Balanced</b></div>\n" * 20_000,
        "<p>A line<br>and another<br><img src=x>\n" * 10_000,
        f"<p>{PARAGRAPH}<img src='data:image/png;base64,{'A ' * 200_000}'></p>",
        "<p>" + "1 < 2 and 3 << 4. " * 20_000,
        "<pre>" + "═" * 50_000 + "e\u0301" * 50_000,
        "<pre>" + " " * 2_000_000 + "text" + "\u00a0" * 2_000_000 + "text",
    ],
)
def test_long_pages_of_old_markup_are_not_taken_for_complex_ones(tmp_path: Path, markup: str) -> None:
    documents, _, _ = run(tmp_path, record("http://a/", page(markup)), ExtractConfig(main_content=False))
    assert documents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "reasons"),
    [
        (Limits(memory_bytes=400 << 20, cpu_seconds=60), {"memory_limit", "crashed"}),
        (Limits(memory_bytes=4 << 30, cpu_seconds=1), {"cpu_limit"}),
    ],
)
def test_a_page_that_ends_its_process_is_a_row_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, reasons: set[str]
) -> None:
    monkeypatch.setattr("pipeline.extract.LIMITS", limits)
    isolation._child_of_this_thread().end()  # what it loaded for other tests would count
    first, last = (record(f"http://a/{name}", page(f"<p>{PARAGRAPH}")) for name in ("first", "last"))
    large = record("http://a/large", page("<dl>" + "<dt>word<dd>some words" * 140_000))
    documents, rejects, _ = run(tmp_path, first + large + last, ExtractConfig(extractor="accurate"))
    assert [row["url"] for row in documents] == ["http://a/first", "http://a/last"]
    assert [row["url"] for row in rejects] == ["http://a/large"]
    assert rejects[0]["reason"] in reasons


def test_the_same_part_gives_the_same_bytes_when_its_process_was_ended_on_the_way(tmp_path: Path) -> None:
    warc = b"".join(record(f"http://a/{n}", page(f"<p>{PARAGRAPH}{n}")) for n in range(2000))
    run(tmp_path / "undisturbed", warc)
    child = isolation._child_of_this_thread().process.pid
    killer = threading.Timer(0.1, os.kill, (child, signal.SIGKILL))
    killer.start()
    run(tmp_path / "disturbed", warc)
    killer.join()
    assert isolation._child_of_this_thread().process.pid != child
    for name in ("documents.arrow", "rejects.arrow"):
        undisturbed, disturbed = (tmp_path / folder / "out" / name for folder in ("undisturbed", "disturbed"))
        assert undisturbed.read_bytes() == disturbed.read_bytes()


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("<link rel='license' href='/terms'>", "", "http://a/terms"),
        ("<base href='http://b/c/'>", "<a rel='nofollow License' href='terms'>", "http://b/c/terms"),
        ("", "<a href='//creativecommons.org/licenses/by/4.0/'>", "http://creativecommons.org/licenses/by/4.0/"),
        ("", f"<a href='{CC}/publicdomain/zero/1.0/'>", f"{CC}/publicdomain/zero/1.0/"),
        ("", f"<a href='{CC}/licenses/by/4.0/'><a rel=license href=/l>", "http://a/l"),
        ("", f"<a href='{CC}/licenses/by/4.0/'><a href='{CC}/licenses/by/2.0/'>", f"{CC}/licenses/by/4.0/"),
        ("", f"<a href='{CC}/licenses/'><a href='https://x.org/?creativecommons.org/licenses/by'>", None),
        (
            "",
            "<a rel=license href='javascript:x'><a rel=license href='http://[x'><a rel=license href=' /l '>",
            "http://a/l",
        ),
    ],
)
def test_a_licence_link_goes_into_the_document(tmp_path: Path, head: str, body: str, expected: str | None) -> None:
    warc = record("http://a/x/", page(f"<p>{PARAGRAPH}</p>{body}", head=head))
    assert run(tmp_path, warc)[0][0]["license"] == expected
