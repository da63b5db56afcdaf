"""Personal data in text: e-mail addresses, public IP addresses and phone numbers, found and replaced by placeholders.

Every pattern begins with a character that is rare in text, is bounded or possessive, and looks behind itself only as
far as such data reaches: so the time is linear in the text, whatever it holds. Nothing depends on a Unicode table.

What is replaced too, though it is none: `git@github.com`, and a version number of four parts, one above 30, that no
word introduces as one. What is left: what is set aside for examples; addresses with a blank or "at" in them; names in
scripts above U+07FF; four low numbers that nothing calls an address; a phone number written in the national way in
pairs or without separators, unless a word such as "Tel." stands before it.
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
_PINNED = re.compile(r".v?(?:[0-9]{1,2}\.|[0-9]+\.[0-9])")
"""`name@1.0.0-beta.next`; 163.com and 126.com are mail providers."""
_EXAMPLE_DOMAIN = re.compile(r".*[.@＠](?:example\.(?:com|net|org)|example|test|invalid|localhost)", re.I)
"""Names that belong to nobody (RFC 2606)."""


def _emails(text: str) -> Iterator[Found]:
    for sign, pattern in _FROM_AT:
        end = 0
        for match in pattern.finditer(text) if sign in text else ():
            at = match.start()
            code = text[match.end() : match.end() + 1] in {"(", "["}  # a matrix product: a@b.sum()
            if code or _PINNED.match(match.group()) or _EXAMPLE_DOMAIN.fullmatch(match.group()):
                continue
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
        "версии", "版本", "バージョン", "release", "releases", "revision", "rev", "build", "firmware", "kernel",
        "linux", "driver", "update", "patch", "package", "section", "sections", "sec", "secs", "sect", "chapter",
        "chapters", "clause", "clauses", "article", "articles", "art", "appendix", "annex", "paragraph", "paragraphs",
        "para", "figure", "figures", "fig", "figs", "table", "tables", "theorem", "lemma", "proposition", "corollary",
        "definition", "equation", "eq", "exercise", "rule", "rfc", "abschnitt", "abschnitte", "kapitel", "absatz",
        "artikel", "abbildung", "abb", "tabelle", "satz", "chapitre", "tableau", "sección", "capítulo", "artículo",
        "figura", "tabla", "seção", "artigo", "tabela", "sezione", "capitolo", "articolo", "rozdział", "раздел",
        "глава", "статья", "пункт", "рис", "§",
    )
)  # fmt: skip
"""Words that say of four numbers behind them that they are no address."""
_ADDRESS_WORDS = frozenset(
    (
        "ip", "ips", "ipv4", "address", "addresses", "addr", "host", "hosts", "hostname", "server", "servers", "dns",
        "nameserver", "gateway", "router", "proxy", "ping", "ssh", "scp", "telnet", "curl", "wget", "dig", "nslookup",
        "traceroute", "whois", "from", "adresse", "dirección", "endereço", "indirizzo", "adres", "адрес", "地址",
        "アドレス", "주소",
    )
)  # fmt: skip
"""Words that say of four numbers behind them that they are an address."""
_ADDRESS_SIGNS = ("//", "@")
_PORT_OR_PREFIX = re.compile(r":[0-9]{2,5}(?![0-9.])|/(?:[89]|[12][0-9]|3[0-2])(?![0-9./])")
_UPGRADE = re.compile(r" (?:to|->|→) [0-9]")
_PIN = re.compile(r"(?:[=<>~!]=|~>|[~^])[ ]?\Z|(?<![^\s\"'(,;:])[A-Za-z]{1,25}/\Z")
"""What stands before the version of a requirement or, in a server's log, of a product."""
_HIGHEST_SECTION = 30
"""Four numbers up to this count a section or a version; of the addresses 2 in 10,000 look like that."""
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
        if _called_an_address(text, start, end) or not (
            max(address.packed) <= _HIGHEST_SECTION
            or _PIN.search(text, max(0, start - _REACH), start)
            or _introduction(text, start, _VERSION_WORDS) is not None
        ):
            yield Found(start, end, "ipv4")


def _called_an_address(text: str, start: int, end: int) -> bool:
    between = _introduction(text, start, _ADDRESS_WORDS)
    if between is not None and "\n" not in between and not _UPGRADE.match(text, end):
        return True
    return text.endswith(_ADDRESS_SIGNS, 0, start) or _PORT_OR_PREFIX.match(text, end) is not None


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
_NEVER = re.compile(
    r"[ \u00a0\u202f][\u2010-\u2013-][0-9]"  # a negative number
    r"|(?<![0-9])(?:19|20)[0-9]{2}[^0-9]+(?:19|20)[0-9]{2}(?![0-9])"  # years
    r"|(?<![0-9])(?:19|20)[0-9]{2}([./-])(?:0[1-9]|1[0-2])\1[0-3][0-9](?![0-9])"  # dates
    r"|(?<![0-9])[0-3]?[0-9]([./-])(?:0?[1-9]|1[0-2])\2(?:19|20)[0-9]{2}(?![0-9])"
    r"|\A\+(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9][0-2][0-9](?:[0-5][0-9]){2}\Z"
    r"|\A(?:\+[0-9]+|[0-9])\.[0-9]+(?:[^0-9.]+[0-9]+\.[0-9]+)*\Z"  # decimals
    r"|\A\+?[0-9]{1,3}(?:[ .\u00a0\u202f][0-9]{3})*[ .\u00a0\u202f]000\Z"  # a round number
)
"""What no sign and no word makes a phone number."""
_EXAMPLE_DIGITS = re.compile(r"1?(?:[2-9][0-9]{2})?55501[0-9]{2}")
"""555-0100 to 555-0199, set aside for examples (North American numbering plan)."""
_COUNTRY = (
    r"(?:1|7|2(?:0|7|1[12368]|[2346][0-9]|5[0-8]|9[017-9])|3(?:[0-469]|[57][0-9]|8[0-35-79])|4(?:[013-9]|2[013])"
    r"|5(?:[1-8]|[09][0-9])|6(?:[0-6]|7[02-9]|8[0-35-9]|9[0-2])|8(?:[1246]|0[08]|5[02356]|7[08]|8[0-368])"
    r"|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68]))"
)
"""The assigned codes (ITU-T E.164)."""
_INTERNATIONAL_DIGITS = re.compile(
    rf"(?=[0-9]{{9,15}}\Z)(?!.*00000\Z)(?:1[2-9][0-9]{{2}}[2-9][0-9]{{6}}|7[346789][0-9]{{9}}|(?![17]){_COUNTRY}[0-9]+)"
)
_SPACE = r"[ \u00a0\u202f]"
_BREAK = rf"(?:{_SPACE}?\(|\)[ \u00a0-]?|{_SPACE}?[/\u2010-\u2013-]{_SPACE}|[ ./\u00a0\u2010-\u2013\u202f-])"
_INTERNATIONAL = re.compile(
    rf"\+(?![0-9]{{1,3}}(?:[ .\u00a0\u202f][0-9]{{3}})+\Z)"  # thousands
    rf"\(?{_COUNTRY}\)?{_BREAK}?[0-9]+(?:{_BREAK}[0-9]{{2,}}){{0,5}}(?:[\u2010-\u2013-][0-9])?"
    rf"|\+(?![17]){_COUNTRY}(?:{_SPACE}[0-9]{{3}}){{3}}"  # Czech, Polish, Portuguese, Spanish
)
"""The country's code and groups, of which the first and, as an extension, the last may be a single digit."""
_OPTIONAL_TRUNK = re.compile(r"\(0\) ?")
_SIGNED_GOES_ON = re.compile(r"[eE][+-]?[0-9]|[iIjJ](?![A-Za-z])|[%°_@]|[.,:][0-9]")
_NORTH_AMERICAN = re.compile(
    r"(?<![0-9])(?<![0-9][./-])(?:1[-. ])?"
    r"(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}-(?=[0-9]{3}-)|[2-9][0-9]{2}\.(?=[0-9]{3}\.))"
    r"(?!555[-.]01)[2-9][0-9]{2}[-.][0-9]{4}(?![0-9]|[./-][0-9])"
)
_TRUNK = re.compile(
    r"(?!0[0-9]{4}-[0-9]{4}\Z)"  # a ZIP code
    r"(?!0[0-9]{2}(?:[ \u00a0\u202f-][0-9]{3})+\Z)"  # a count
    r"(?:\(?0[1-9][0-9]{1,3}\)?[ /\u00a0\u2010-\u2013\u202f-]{1,3}[0-9]{3,8}(?:[ \u00a0\u202f-][0-9]{2,5}){0,2}"
    r"|\(?0[1-9](?:\) |[) /\u00a0\u2010-\u2013\u202f-])"
    r"(?:[0-9]{3,4}[ \u00a0\u202f-][0-9]{4}|[0-9]{3}(?:[ \u00a0\u202f][0-9]{2}){2}))"
)
"""National numbers with the trunk prefix 0; a date has fewer digits in its second group."""
_TRUNK_DIGITS = range(9, 12)
_PHONE_WORDS = frozenset(
    (
        "tel", "tél", "tlf", "tfno", "phone", "telephone", "telephones", "téléphone", "telefon", "telefono", "teléfono",
        "telefone", "telefoon", "fax", "telefax", "тел", "телефон", "факс", "电话", "電話", "전화", "هاتف", "☎", "☏",
        "✆", "📞",
    )
)  # fmt: skip
"""Words that say of digits behind them that they are a phone number."""
_WEAK_PHONE_WORDS = frozenset(
    ("ph", "fon", "phones", "mobile", "mobil", "móvil", "cell", "handy", "hotline", "whatsapp", "моб", "手机")
)
"""Words that say so only with a colon, a full stop or "number" behind them."""
_PART_OF_MORE = re.compile(r"[0-9A-Za-z_/=#&?%@$€£¥.-]\Z|[0-9][,:]\Z")
_GOES_ON = re.compile(r"[0-9A-Za-z_@%]|[,:][0-9]")


def _phones(text: str) -> Iterator[Found]:
    for match in _DIGITS.finditer(text):
        start, end = match.span()
        opened = start - 1 if text[start - 1 : start] == "(" and text.find(")", start, end) > 0 else start
        opened -= text.startswith("+", opened - 1) if opened else 0
        if (_SIGNED_GOES_ON if text[opened] == "+" else _GOES_ON).match(text, end):
            continue
        if end - start <= _LONGEST and _is_phone(text, opened, end):
            yield Found(opened, end, "phone")
        elif not _PART_OF_MORE.search(text, max(0, opened - 2), opened):
            for inner in _NORTH_AMERICAN.finditer(text, opened, end):
                yield Found(*inner.span(), "phone")


def _is_phone(text: str, start: int, end: int) -> bool:
    """Whether a whole run of digits is a phone number, by its "+" or its trunk prefix or the word before it."""
    number = _OPTIONAL_TRUNK.sub("", text[start:end])
    digits = "".join(filter(str.isdigit, number))
    if len(digits) > _MOST or _NEVER.search(number) or _EXAMPLE_DIGITS.fullmatch(digits):
        return False
    if number[0] == "+":
        formed = bool(_INTERNATIONAL_DIGITS.fullmatch(digits) and _INTERNATIONAL.fullmatch(number))
    else:
        formed = len(digits) in _TRUNK_DIGITS and _TRUNK.fullmatch(number) is not None
    if formed and not _PART_OF_MORE.search(text, max(0, start - 2), start):
        return True
    if number[0] == "+" and not formed:
        return False
    if _introduction(text, start, _PHONE_WORDS) is not None:
        return True
    between = _introduction(text, start, _WEAK_PHONE_WORDS)
    return between is not None and _SAYS_SO.match(between) is not None


_REACH = 30
"""Characters before a find in which the word that introduces it ends."""
_WORDS = re.compile("[0-9A-Za-z\u00c0-\u1fff\u3041-\uff00]+|[§☎☏✆📞]")
_UNSPACED = "\u3041"
_BETWEEN = frozenset(
    (
        "number", "numbers", "no", "nr", "num", "nummer", "número", "numéro", "numero", "номер", "号码", "番号", "번호",
        "is", "of", "at",
    )
)  # fmt: skip
"""Words that may stand between that word and the find."""
_SAYS_SO = re.compile(r"[ \t]*(?:[.:：]|n(?:o|r|um))")


def _introduction(text: str, start: int, words: frozenset[str]) -> str | None:
    """What stands between `start` and the last word before it, if that is one of these: else None."""
    reach = text[max(0, start - _REACH) : start].lower()
    before = list(_WORDS.finditer(reach))
    if before and before[-1].group() in _BETWEEN:
        before.pop()
    if not before:
        return None
    word = before[-1].group()
    # Chinese and Japanese join words.
    known = word in words or (word[-1] >= _UNSPACED and word.endswith(tuple(words)))
    return reach[before[-1].end() :] if known else None
