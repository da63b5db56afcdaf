"""Which chunks are addresses, so that nothing splits them: a host name or public IPv4 address, alone or in a URL.

The grammar is that of spaCy's tokenizer: `[scheme://][user@]host[:port][/path]`, where the host ends in a word of two
or more lower-case letters. `example.org`, `me@x.org` and `https://x.org/a-b` are whole, `3.14` and `end.Next` are not.
"""

from pipeline.kernels import Codes, Kinds, kernel
from pipeline.words import tables
from pipeline.words.tables import ASCII_DIGIT, DIGIT, HOST, LOWER, WORD, ZERO

DOT, PLUS, MINUS, UNDERSCORE, COLON, SLASH, QUESTION, HASH, AT, DIGIT_ZERO = map(ord, ".+-_:/?#@0")
MIN_SCHEME, MAX_LABEL, MIN_TOP, MAX_TOP, MIN_PORT, MAX_PORT, MAX_OCTET = 2, 64, 2, 63, 2, 5, 3
"""Characters."""

compiled = kernel(__file__, str(tables.__file__))


@compiled
def is_address(codes: Codes, kinds: Kinds, a: int, b: int) -> bool:
    """Whether the whole of `codes[a:b]` is an address."""
    dots = False
    for i in range(a, b):
        dots = dots or codes[i] == DOT
    if not dots:
        return False
    if _is_host_and_path(codes, kinds, a, b):
        return True
    i = a
    while i < b and (kinds[i] & WORD or codes[i] == PLUS or codes[i] == MINUS or codes[i] == DOT):
        i += 1
    scheme = i - a >= MIN_SCHEME and i + 2 < b and codes[i] == COLON and codes[i + 1] == codes[i + 2] == SLASH
    if scheme and _is_host_and_path(codes, kinds, i + 3, b):
        return True
    for j in range(a + 1, b):  # noqa: SIM110 - a kernel knows no any()
        if codes[j] == AT and _is_host_and_path(codes, kinds, j + 1, b):
            return True
    return False


@compiled
def _is_host_and_path(codes: Codes, kinds: Kinds, a: int, b: int) -> bool:
    end = a
    while end < b and (kinds[end] & (HOST | LOWER) or codes[end] in (DOT, MINUS, UNDERSCORE)):
        end += 1
    i = end
    if i < b and codes[i] == COLON:
        i += 1
        while i < b and kinds[i] & DIGIT:
            i += 1
        if not MIN_PORT <= i - end - 1 <= MAX_PORT:
            return False
    if i < b and codes[i] not in (SLASH, QUESTION, HASH):
        return False
    return _is_host_name(codes, kinds, a, end) or _is_public_ip(codes, kinds, a, end)


@compiled
def _is_host_name(codes: Codes, kinds: Kinds, a: int, b: int) -> bool:
    """Whether `codes[a:b]` is labels, each with a full stop behind it, and a top-level domain."""
    start = a
    for i in range(a, b):
        if codes[i] == DOT:
            if not 1 <= i - start <= MAX_LABEL or not kinds[start] & HOST or not kinds[i - 1] & HOST:
                return False
            for j in range(start, i):
                if not kinds[j] & HOST and codes[j] != MINUS and codes[j] != UNDERSCORE:
                    return False
            start = i + 1
    if start == a or not MIN_TOP <= b - start <= MAX_TOP:
        return False
    for i in range(start, b):  # noqa: SIM110 - a kernel knows no all()
        if not kinds[i] & LOWER:
            return False
    return True


@compiled
def _is_public_ip(codes: Codes, kinds: Kinds, a: int, b: int) -> bool:
    """Whether `codes[a:b]` is an IPv4 address outside the loopback, private, link-local and reserved ranges."""
    n = ZERO
    first = second = last = value = digits = ZERO
    leading = False
    for i in range(a, b + 1):
        if i < b and kinds[i] & ASCII_DIGIT:
            leading = leading or (digits == 0 and codes[i] == DIGIT_ZERO)
            value = 10 * value + codes[i] - DIGIT_ZERO
            digits += 1
            if digits > MAX_OCTET:
                return False
            continue
        # Only the inner two may begin with a zero, and then have at most two digits.
        ends = n == 0 or n == 3
        if (i < b and codes[i] != DOT) or digits == 0 or n > 3 or (leading and (ends or digits == MAX_OCTET)):
            return False
        if value > 255:
            return False
        if n == 0:
            first = value
        elif n == 1:
            second = value
        last = value
        n += 1
        value = digits = ZERO
        leading = False
    if n != 4 or first > 223 or last > 254 or first in (10, 127):
        return False
    return not (
        (first == 169 and second == 254) or (first == 192 and second == 168) or (first == 172 and 16 <= second <= 31)
    )
