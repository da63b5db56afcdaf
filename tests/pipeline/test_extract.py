"""extract: every page is a row, in documents or in rejects, and depends on its record alone."""

import gzip
import io
import unicodedata
from pathlib import Path

import pytest
from fastwarc.warc import WarcRecord, WarcRecordType
from hypothesis import given
from hypothesis import strategies as st

from pipeline.charset import decode
from pipeline.documents import DOCUMENTS, REJECTS, doc_id, read_table
from pipeline.extract import REASONS, ExtractConfig, clean, extract

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside the project")

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


@pytest.mark.parametrize("extractor", ["resiliparse", "trafilatura"])
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


@needs_shared
def test_shared_pages_decode_as_labelled_with_few_known_exceptions() -> None:
    python_names = {"MacCyrillic": "mac_cyrillic", "MacRoman": "mac_roman"}
    wrong = set()
    for path in sorted((SHARED / "charset").glob("*/*")):
        parts = path.parent.name.split("-")
        label = python_names.get(path.parent.name, "-".join(parts[: 3 if parts[0] == "iso" else 2]))
        expected = path.read_bytes().decode(label, errors="replace").lstrip("\ufeff")
        text = decode(path.read_bytes()) or ""
        differing = sum(a != b for a, b in zip(text, expected, strict=False)) + abs(len(text) - len(expected))
        # Vendors map a few marks of Shift_JIS and GB2312 to other code points: that much may differ.
        if differing > 0.002 * len(expected) + 1:
            wrong.add(f"{path.parent.name}/{path.name}")
    assert wrong <= {"Johab/hlpro-readme.txt", "iso-8859-7-greek/_ude_2.txt", "SHIFT_JIS/setsuzei119.jp.xml"}
