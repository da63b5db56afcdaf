"""Words that the rules of splitting do not reach: English contractions, abbreviations, emoticons, units of measure.

Each is a fact about spaCy's English tokenizer, whose words datatrove's filters count: what is listed here it leaves
whole or cuts at fixed places. Wherever an apostrophe stands, the curly one counts the same.
"""

from collections.abc import Iterator
from functools import cache

CONTRACTIONS = (
    ("i", "'m 'm|a"),
    ("i you he she it we they", "'ll 'll|'ve 'd 'd|'ve"),
    ("i you we they", "'ve"),
    ("you we they", "'re"),
    ("he she it", "'s"),
    ("who what when where why how there that this", "'s"),
    ("who what when where why how there that this these those", "'ll 'll|'ve 'd 'd|'ve"),
    ("who what when where why how there these those", "'re 've"),
    ("ca could do does did had may might must need ought sha should wo would", "n't n't|'ve"),
    ("could might must should would", "'ve"),
    ("ai are is was were have has dare", "n't"),
)
"""Stems, in lower case or with a capital, and the endings cut off from them, with their apostrophes or without."""

NO_CONTRACTIONS = frozenset("ill its hell shell shed were well whore".split())  # noqa: SIM905 - read as words
"""Words that look like a stem and an ending without its apostrophe."""

IN_PIECES = (
    "y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na Gon|na got|ta Got|ta let|'s "
    "Let|'s c'm|on C'm|on"
)

CLIPPED = "doin goin nothin nuthin ol somethin lovin havin"
"""Words whose last letter an apostrophe may replace, in lower case or with a capital."""

WHOLE = (
    "' '' em 'em ll 'll nuff 'nuff 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am "
    "Ma'am o'clock O'clock 'd \\t \\n — \\\") <space> C++ "
    # abbreviations: they keep their full stop
    "a.m. p.m. e.g. E.g. E.G. i.e. I.e. I.E. v.s. vs. co. Co. Adm. Bros. Corp. D.C. Dr. Gen. Gov. Inc. Jr. Ltd. "
    "Messrs. Mr. Mrs. Ms. Mt. Ph.D. Prof. Rep. Rev. Sen. St. Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. "
    "Dec. Ak. Ala. Ariz. Ark. Calif. Colo. Conn. Del. Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Md. Mich. "
    "Minn. Miss. Mo. Mont. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Okla. Ore. Pa. S.C. Tenn. Va. Wash. Wis. "
    "a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. ä. ö. ü. "
    # emoticons
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= =[ :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( "
    ":-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() "
    ">:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. "
    ";_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) "
    "(-_-) (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>"
)

UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa "
    "mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч "
    "кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام جرام جم كغ ملغ "
    "كوب اكواب +"
)
"""What comes off behind a digit, beside currencies."""
CURRENCIES = "$ £ € ¥ ฿ US$ C$ A$ ﷼ " + " ".join(map(chr, range(0x20A0, 0x20C0)))

MAX_SPECIAL = 12
MAX_UNIT = 5


@cache
def special_words() -> dict[str, tuple[str, ...]]:
    """Every special word and its pieces."""
    found: dict[str, tuple[str, ...]] = {}
    for pieces in _pieces():
        for variant in (pieces, tuple(piece.replace("'", "’") for piece in pieces)):
            found["".join(variant)] = variant
    return found


def _pieces() -> Iterator[tuple[str, ...]]:
    for stems, endings in CONTRACTIONS:
        for lower in stems.split():
            for stem in (lower, lower.title()):
                for ending in endings.split():
                    yield stem, *ending.split("|")
                    bare = (stem, *ending.replace("'", "").split("|"))
                    if "".join(bare).lower() not in NO_CONTRACTIONS:
                        yield bare
    for word in CLIPPED.split():
        for clipped in (word, word.title()):
            yield (clipped,)
            yield (clipped + "'",)
    for hour in range(1, 13):
        for half in ("a.m.", "am", "p.m.", "pm"):
            yield str(hour), half
    for degrees in "cfkCFK":
        yield "°", degrees, "."
    for words in IN_PIECES.split():
        yield tuple(words.split("|"))
    for word in WHOLE.split():
        yield (word,)
