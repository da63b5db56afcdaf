"""Personal data in text: e-mail addresses, public IP addresses and phone numbers, found and replaced by placeholders.

Every pattern begins with a character that is rare in text, is bounded or possessive, and looks behind itself only as
far as such data reaches: so the time is linear in the text, whatever it holds. Nothing depends on a Unicode table.

What is replaced too, though it is none: `git@github.com`, and a version number of four parts that no word introduces
as one. What is left: addresses with a blank or "at" in them; names in scripts above U+07FF; a phone number written in
the national way without separators, unless a word such as "Tel." stands before it.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pipeline.config import Config

Kind = Literal["email", "ipv4", "ipv6", "phone"]
KINDS: tuple[Kind, ...] = ("email", "ipv4", "ipv6", "phone")


class PiiConfig(Config):
    """What personal data is replaced by; `false` leaves the kind as it is.

    The defaults read like what they stand for, so that text stays text, and are set aside for examples: they belong to
    nobody (RFC 2606 the name, RFC 5737 and RFC 3849 the addresses, the North American numbering plan the number).
    """

    email: str | Literal[False] = "email@example.com"
    """In place of an e-mail address."""
    ipv4: str | Literal[False] = "192.0.2.1"
    """In place of a public IPv4 address; private, loopback and documentation ones identify nobody and are left."""
    ipv6: str | Literal[False] = "2001:db8::1"
    """In place of a public IPv6 address."""
    phone: str | Literal[False] = "202-555-0100"
    """In place of a phone number."""


class Found(NamedTuple):
    """Where a text holds personal data: characters `start` to `end`."""

    start: int
    end: int
    kind: Kind


def replace_pii(text: str, config: PiiConfig) -> tuple[str, Counter[Kind]]:
    """The text with personal data replaced as configured, and how much of each kind was replaced."""
    pieces: list[str] = []
    counts: Counter[Kind] = Counter()
    end = 0
    for found in find_pii(text):
        placeholder = getattr(config, found.kind)
        if placeholder is not False:
            pieces += (text[end : found.start], placeholder)
            counts[found.kind] += 1
            end = found.end
    return ("".join(pieces) + text[end:] if counts else text), counts


def find_pii(text: str) -> list[Found]:
    """Personal data in the order of the text; where two overlap, the one that begins first."""
    every = [*_emails(text), *_ipv4(text), *_ipv6(text), *_phones(text)]
    every.sort(key=lambda found: (found.start, -found.end))
    apart: list[Found] = []
    for found in every:
        if not apart or found.start >= apart[-1].end:
            apart.append(found)
    return apart


_LETTERS = "A-Za-z\u00c0-\u07ff"
"""Letters of scripts that part words by spaces: above, an address would run on into the sentence around it."""
_LOCAL_LENGTH = 64
"""Characters before the "@" at most (RFC 5321, 4.5.3.1.1)."""
_LOCAL_BACKWARDS = re.compile(rf"[{_LETTERS}0-9_.%+-]+")
_DOMAIN = (
    rf"(?:[{_LETTERS}0-9-]{{1,63}}+\.){{1,8}}"
    r"(?!(?:png|jpe?g|gif|webp|svg|bmp|ico|css|json|html?|xml|php|txt|pdf)(?![A-Za-z0-9]))"  # logo@2x.png
    r"(?:xn--[A-Za-z0-9-]{2,59}+|[A-Za-z]{2,24}+(?![0-9])|[\u00c0-\u07ff]{2,24}+)"
)
"""Labels, then a top-level domain of letters."""
_FROM_AT = tuple((at, re.compile(at + _DOMAIN)) for at in "@＠")
"""A pattern for either sign, full width in Japanese: one that begins with a single character skips faster."""


def _emails(text: str) -> Iterator[Found]:
    for sign, pattern in _FROM_AT:
        end = 0
        for match in pattern.finditer(text) if sign in text else ():
            at = match.start()
            before = _LOCAL_BACKWARDS.match(text[max(end, at - _LOCAL_LENGTH) : at][::-1])
            local = before.group()[::-1].lstrip(".%+-") if before else ""
            if local:
                end = match.end()
                yield Found(at - len(local), end, "email")


_IPV4_TAIL = re.compile(
    r"\.(?<=[0-9]\.)[0-9]{1,3}+\.[0-9]{1,3}+\.[0-9]{1,3}+(?![0-9A-Za-z_]|\.[0-9]|-[A-Za-z])",
)
"""From the first dot on; the first number is looked for behind it."""
_IPV4_HEAD = re.compile(r"(?<![0-9.])(?<![A-Za-z_])(?<![A-Za-z]-)[0-9]{1,3}\Z")
_VERSION_WORDS = frozenset(
    (
        "v", "ver", "version", "versions", "versionen", "versión", "versão", "versione", "versie", "wersja", "версия",
        "версии", "版本", "バージョン", "release", "releases", "revision", "rev", "build", "firmware", "section",
        "sections", "chapter", "clause", "§",
    )
)  # fmt: skip
"""Words that say of four numbers behind them that they are no address."""
_HEADING = re.compile(r"\.[ \t\u00a0]|[ \t\u00a0]+[A-Z]")
_HIGHEST_SECTION = 30
"""Four numbers up to this at the start of a line count a section; of the addresses 2 in 10,000 look like that."""
_NOBODYS_IPV4 = tuple(
    (int(network[0]), int(network[-1]))
    for network in map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/3",
        ),
    )
)  # fmt: skip
"""First and last address of the blocks that are not public: IANA's special purposes (RFC 6890), multicast, reserved."""
_NOBODYS_IPV6 = tuple(ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
"""Of 2000::/3, the public addresses, those set aside for protocols and documentation (RFC 2928, 3849, 9637)."""


def _ipv4(text: str) -> Iterator[Found]:
    for match in _IPV4_TAIL.finditer(text):
        head = _IPV4_HEAD.search(text, max(0, match.start() - 3), match.start())
        if head is None or match.group().endswith(".0.0"):  # of a network or a version, never of a host
            continue
        try:
            address = ipaddress.IPv4Address(head.group() + match.group())
        except ValueError:
            continue
        if any(first <= int(address) <= last for first, last in _NOBODYS_IPV4):
            continue
        start, end = head.start(), match.end()
        section = text[start - 1 : start] in {"", "\n"} and max(address.packed) <= _HIGHEST_SECTION
        if section and _HEADING.match(text, end):
            continue
        if not _introduced(text, start, _VERSION_WORDS):
            yield Found(start, end, "ipv4")


_IPV6_TAIL = re.compile(
    r":(?<=[23][0-9A-Fa-f]{3}:)(?<![0-9A-Za-z:._][0-9A-Fa-f]{4}:)"
    r"(?:[0-9A-Fa-f]{0,4}:){1,6}(?:[0-9A-Fa-f]{1,4}|(?<=::))(?![0-9A-Za-z_]|:[0-9A-Fa-f:])"
)
"""From the first colon on; the four digits before it begin with 2 or 3, as all public addresses do."""


def _ipv6(text: str) -> Iterator[Found]:
    for match in _IPV6_TAIL.finditer(text):
        start = match.start() - 4
        try:
            address = ipaddress.IPv6Address(text[start : match.end()])
        except ValueError:
            continue
        if not any(address in network for network in _NOBODYS_IPV6):
            yield Found(start, match.end(), "ipv6")


_DIGITS = re.compile(r"[0-9](?:[ .()/\u00a0\u2010-\u2013\u202f-]{0,3}+[0-9]){6,}+")
"""Seven digits and more with little between them, as long as they go on: nearly always something else."""
_LONGEST = 40
"""Characters of a phone number with all its separators; what is longer is a table."""
_MOST = 15
"""Digits of a phone number (E.164)."""
_INTERNATIONAL = 8
"""Digits with the country's code, at least."""
_DECIMAL = re.compile(r"\+[0-9]+\.[0-9]{1,3}")
_NORTH_AMERICAN = re.compile(
    r"(?<![0-9])(?<![0-9][./-])(?:1[-. ])?"
    r"(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}-(?=[0-9]{3}-)|[2-9][0-9]{2}\.(?=[0-9]{3}\.))"
    r"[2-9][0-9]{2}[-.][0-9]{4}(?![0-9]|[./-][0-9])"
)
_TRUNK = re.compile(
    r"(?!0[0-9]{4}-[0-9]{4}\Z)"  # a ZIP code
    r"\(?0[1-9][0-9]{0,3}\)?[ /\u00a0\u2010-\u2013\u202f-]{1,3}[0-9]{3,8}(?:[ \u00a0\u202f-][0-9]{2,5}){0,2}"
    r"|0[1-9]([ .\u00a0\u202f-])[0-9]{2}(?:\1[0-9]{2}){3}"  # French
)
"""National numbers with the trunk prefix 0; a date has fewer digits in its second group."""
_TRUNK_DIGITS = range(9, 12)
_PHONE_WORDS = frozenset(
    (
        "tel", "tél", "tlf", "tfno", "ph", "fon", "phone", "phones", "telephone", "telephones", "téléphone", "telefon",
        "telefono", "teléfono", "telefone", "telefoon", "fax", "telefax", "mobile", "mobil", "móvil", "cell", "handy",
        "hotline", "whatsapp", "тел", "телефон", "факс", "моб", "电话", "電話", "手机", "전화", "هاتف", "☎", "☏", "✆",
        "📞",
    )
)  # fmt: skip
"""Words that say of digits behind them that they are a phone number."""
_PART_OF_MORE = re.compile(r"[0-9A-Za-z_/=#&?%@$€£¥.-]\Z|[0-9][,:]\Z")
_GOES_ON = re.compile(r"[0-9A-Za-z_@%]|[,:][0-9]")


def _phones(text: str) -> Iterator[Found]:
    for match in _DIGITS.finditer(text):
        start, end = match.span()
        opened = start - 1 if text[start - 1 : start] == "(" and text.find(")", start, end) > 0 else start
        opened -= text.startswith("+", opened - 1) if opened else 0
        if text[opened] != "+" and _GOES_ON.match(text, end):
            continue
        if end - start <= _LONGEST and _is_phone(text, opened, end):
            yield Found(opened, end, "phone")
        elif not _PART_OF_MORE.search(text, max(0, opened - 2), opened):
            for inner in _NORTH_AMERICAN.finditer(text, opened, end):
                yield Found(*inner.span(), "phone")


def _is_phone(text: str, start: int, end: int) -> bool:
    """Whether a whole run of digits is a phone number, by its "+" or its trunk prefix or the word before it."""
    number = text[start:end]
    digits = sum(character.isdigit() for character in number)
    if digits > _MOST:
        return False
    if not _PART_OF_MORE.search(text, max(0, start - 2), start):
        if number[0] == "+":
            return digits >= _INTERNATIONAL and number.lstrip("+(")[0] != "0" and not _DECIMAL.fullmatch(number)
        if digits in _TRUNK_DIGITS and _TRUNK.fullmatch(number):
            return True
    return _introduced(text, start, _PHONE_WORDS)


_REACH = 30
"""Characters before a find in which the word that introduces it ends."""
_WORDS = re.compile("[0-9A-Za-z\u00c0-\u1fff\u3041-\uff00]+|[§☎☏✆📞]")
_UNSPACED = "\u3041"
_NUMBER_WORDS = frozenset(
    ("number", "numbers", "no", "nr", "num", "nummer", "número", "numéro", "numero", "номер", "号码", "番号", "번호")
)


def _introduced(text: str, start: int, words: frozenset[str]) -> bool:
    """Whether the last word before `start` is one of these, perhaps with "number" behind it."""
    before = _WORDS.findall(text[max(0, start - _REACH) : start].lower())
    if before and before[-1] in _NUMBER_WORDS:
        before.pop()
    if not before:
        return False
    # Chinese and Japanese join words; theirs here have two characters.
    return before[-1] in words or (before[-1] >= _UNSPACED and before[-1][-2:] in words)
