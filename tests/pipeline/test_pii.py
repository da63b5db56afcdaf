"""Personal data: what is found in any text, what is left, and that it takes time linear in the text."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pii import PiiConfig, find_pii, replace_pii

FOUND = {
    "email": [
        "ada@mill.org", "ada.l+news@mail.mill.co.uk", "ADA_1@MILL.ORG", "müller@mühle.de", "иван@почта.рф",
        "ada@xn--mhle-0ra.xn--p1ai", "ada＠mill.jp", "o-b@a-b.museum", "ada@163.com",
    ],
    "ipv4": ["8.34.208.7", "66.102.11.104", "172.15.0.1", "255.1.2.3"[1:]],
    "ipv6": ["2001:4860:4860::8888", "2a00:1450:4001:81b:0:0:0:200e", "2606:4700::"],
    "phone": [
        "+1 202-555-4143", "+49 (0)30 1234567", "+33 6 12 34 56 78", "+8613812345678", "(202) 555-4143", "202-555-4143",
        "1-800-555-4143", "202.555.4143", "030/1234567", "(030) 123 45 67", "0171-1234567", "020 7946 0958",
        "03-1234-5678", "+1 (202) 555-4143", "+7(495)123-45-67", "+48 612 345 678", "+353 1 234 5678", "+316 12345678",
        "+49 30 1234-0", "+33.1.23.45.67.89", "+44 (0) 20 7946 0958", "+55 11 91234-5678", "+12025554143",
    ],
}  # fmt: skip

LEFT = [
    "user@host", "@decorator.name", "@user.name on medium", "a@b@c", "react@18.2.0", "logo@2x.png", "x @ y.com",
    "10.0.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "172.16.0.9", "100.64.0.1", "192.0.2.7", "203.0.113.9",
    "224.0.0.1", "255.255.255.0", "0.0.0.0", "256.1.1.1", "08.08.08.08", "1.2.3.4.5", "tool-1.2.3.4", "v1.2.3.4",
    "version 1.2.3.4", "Versionen: 1.2.3.4", "版本1.2.3.4", "§ 8.1.6.1", "Version=4.0.0.0", "\n8.1.6.1. Tools",
    "::1", "fe80::1", "fd00::1", "2001:db8::1", "std::vector", "12:34:56", "2023:10:11 12:30:45",
    "ISBN 978-0-306-40615-7", "ISBN 0-306-40615-2", "ISSN 0028-0836", "2021-11-30 10:15", "01.02.2003 10:15",
    "01/02/2003 12", "1,234,567.89", "$202.555.4143", "234 567 8901", "12345678901", "00 01 02 03 04 05 06 07",
    "1 2 3 4 5 6 7 8 9 10", "02110-1301", "+35236450.6", "1990-2000", "build 1234567890", "id=202-555-4143",
]  # fmt: skip

NUMBERS = [
    "+3.14159265", "+1.23456789e-05", "+49.1234567", "+40.6892 -74.0445", "+40.6892 74.0445", "+1.2345 -2.3456",
    "growth +12 000 000 people", "+34 567 890 people", "+20230101120000", "+100 000 000 years", "+1980-02-29",
    "+2020-02-29 12", "1.25+2.25000000j", "+49.5 +12.12345678j", "+4912345678j", "+491234567890e5", "+1234567890",
    "+210 123 4567", "+45.123.456.789", "+500000000", "mobile 2019 2020 2021", "mobile: 2019 2020", "Tel. 2010-2020",
    "In mobile (2010-2020)", "mobile 10 000 000 users", "phone 10 000 000 users", "cell 1.500.000",
    "mobile: 1.500.000", "stem cell 1999 2000 2001", "cell 1234567 of sheet", "pH 1 2 3 4 5 6 7", "fax 2020-02-29 12",
    "01 02 03 04 05", "01 23 45 67 89", "03-1234567", "02 100 200 300", "010 200 300", "0171 -1234567",
    "012 2019 2020", "01  012 0123",
]  # fmt: skip

SECTIONS_AND_VERSIONS = [
    "sections 5.2.4 and 6.2.2.3", "RFC 3986 6.2.2.3", "RFC 7540 - 8.1.2.5", "sec. 8.1.2.5", "Figure 2.3.1.4",
    "Table 3.2.1.1", "Theorem 2.1.3.4", "Abschnitt 4.1.2.3", "article 3.2.1.4", "kernel 5.4.0.42", "Table 3.2.1.41",
    "foo==1.2.3.4", ">=1.2.3.4", "foo==1.2.3.44", "foo >= 1.2.3.44", "foo~=1.2.3.44", "foo=1.2.3.4", "8.1.2.5",
    "Mill/4.0.0.41", "upgrade from 1.2.3.4 to 1.2.4.0", "the server:\n5.2.4.1 Title",
]  # fmt: skip

CODE = [
    "a@b.sum()", "(x@w.mean(axis=0))", "a@b.shape[0]", "foo@1.0.0-beta.next", "foo@1.0.next", "foo@v2.0.beta",
    "foo@18.beta",
]  # fmt: skip

EXAMPLES = [
    "ada@example.com", "ada@EXAMPLE.org", "ada@mail.example.net", "ada@mill.example", "ada@a.test", "ada@a.invalid",
    "ada@my.localhost", "202-555-0143", "+1 202-555-0143", "(202) 555-0143", "1-800-555-0143", "+12025550143",
    "Tel. 555-0143",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in FOUND.items() for value in values])
@pytest.mark.parametrize("around", ["{}", "Write to {}.", "<{}>, or", "({})", "见{}。", "at\t{}\nand", "“{}”"])
def test_each_form_is_found_whole_whatever_stands_around_it(kind: str, value: str, around: str) -> None:
    text = around.format(value)
    (found,) = find_pii(text)
    assert (found.kind, text[found.start : found.end].strip("()")) == (kind, value.strip("()"))


@pytest.mark.parametrize("text", LEFT)
def test_what_identifies_nobody_is_left(text: str) -> None:
    assert find_pii(text) == []
    assert find_pii(f"see {text.strip()} there") == [] or text.startswith("\n")


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_that_measure_count_or_date_are_no_phone_numbers(text: str) -> None:
    assert find_pii(text) == []
    assert find_pii(f"see {text} there") == []


@pytest.mark.parametrize("text", SECTIONS_AND_VERSIONS)
def test_sections_and_versions_are_no_addresses(text: str) -> None:
    assert find_pii(text) == []
    assert find_pii(f"see {text}, there") == []


@pytest.mark.parametrize("text", CODE)
def test_matrix_products_and_pins_are_no_email_addresses(text: str) -> None:
    assert find_pii(f"y = {text}") == []


@pytest.mark.parametrize("text", EXAMPLES)
def test_what_is_set_aside_for_examples_is_left(text: str) -> None:
    assert find_pii(f"see {text}, there") == []


def test_placeholders_are_not_found_again() -> None:
    replaced, counts = replace_pii("ada@mill.org, 66.102.11.104, 2a00:1450::1, +49 30 1234567", PiiConfig())
    assert counts.total() == 4
    assert replace_pii(replaced, PiiConfig()) == (replaced, {})


@pytest.mark.parametrize(
    "text",
    ["ip 8.8.4.4", "IP address: 8.8.4.4", "the address is 8.8.4.4", "host=8.8.4.4", "ping 8.8.4.4", "root@8.8.4.4",
     "//8.8.4.4", "地址8.8.4.4", "ip.addr == 8.8.4.4", "8.8.4.4:80", "8.8.4.0/24"],
)  # fmt: skip
def test_four_low_numbers_that_something_calls_an_address_are_one(text: str) -> None:
    assert [found.kind for found in find_pii(text)] == ["ipv4"]


@pytest.mark.parametrize("before", ["Mobile: ", "Mobile no ", "cell number ", "Handy.: ", "手机：", "Hotline "])
def test_behind_a_weak_word_for_it_digits_need_a_mark_to_be_a_phone_number(before: str) -> None:
    assert [found.kind for found in find_pii(f"{before}83 371 401")] == ["phone"] * (before != "Hotline ")


@pytest.mark.parametrize("before", ["Tel. ", "Phone number: ", "Fax:", "тел.: ", "联系电话:", "☎ ", "Telefon Nr. "])
def test_behind_a_word_for_it_any_run_of_digits_is_a_phone_number(before: str) -> None:
    assert [found.kind for found in find_pii(f"{before}83 371 401, open")] == ["phone"]
    assert [found.kind for found in find_pii(f"{before}01 23 45 67 89, open")] == ["phone"]


def test_an_address_in_a_link_is_found_and_the_link_stays() -> None:
    config = PiiConfig(email="<email>", ipv4="<ip>")
    text = "mailto:ada@mill.org?subject=x http://66.102.11.104:80/ada https://me@mill.org/"
    assert replace_pii(text, config)[0] == "mailto:<email>?subject=x http://<ip>:80/ada https://<email>/"


def test_a_kind_that_is_switched_off_stays_and_is_not_counted() -> None:
    text, counts = replace_pii("ada@mill.org, 66.102.11.104", PiiConfig(email=False, ipv4=""))
    assert text == "ada@mill.org, "
    assert counts == {"ipv4": 1}


@given(
    st.lists(st.one_of(st.text(), st.sampled_from([v for values in FOUND.values() for v in values] + LEFT + NUMBERS)))
)
def test_finds_are_apart_in_order_and_all_that_changes(pieces: list[str]) -> None:
    text = " ".join(pieces)
    found = find_pii(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(a.start < a.end for a in found)
    replaced, counts = replace_pii(text, PiiConfig(email="", ipv4="", ipv6="", phone=""))
    assert counts.total() == len(found)
    ends = [0, *(hit.end for hit in found)]
    assert replaced == "".join(text[a:b] for a, b in zip(ends, [*(hit.start for hit in found), len(text)], strict=True))


@pytest.mark.parametrize(
    "unit",
    ["a", "@", "a@", "a@a.", "@a.", "x@a.a.a.a.a.a.a.a.9 ", "1", "1.", "1.1.1.1.", "2001:", "2001::", ":", "a:", "+",
     "(", "+1 ", "1 ", "12-", "202-555-", "(202) ", "0   ", "1   (", "é@é.", "版本", "a-", "%",
     "ip ", "8.8.4.4 ", "==", "+49 ", "(0) ", "mobile: 1234567 ", "+33 1 23 45 67 89 ", "a@b.sum("],
)  # fmt: skip
def test_a_million_characters_of_almost_anything_take_no_time(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    began = time.perf_counter()
    find_pii(text)
    assert time.perf_counter() - began < 2
