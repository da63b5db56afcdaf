"""Code versions: they see what shapes bytes, and nothing else."""

import textwrap
from pathlib import Path

import pytest

from pipeline.engine import code
from pipeline.engine.code import code_units, kept_units

MAIN = '''
"""Docstring."""
from pipeline.helper import clean, Rule
import pipeline.numbers as numbers
from functools import cache

LIMIT = 5
UNUSED = 6

@cache
def stage(text):
    """What it does."""
    from pipeline.late import shout  # noqa
    # a comment
    return shout(clean(text)[:LIMIT] * numbers.TWO), Rule().apply(text)

def unused():
    return UNUSED
'''
HELPER = '''
from pipeline.config import Config
SUFFIX = "!"
def clean(text):
    return text.strip() + SUFFIX
class Rule:
    """A rule."""
    def apply(self, text):
        return len(text)
class Other:
    pass
'''
FILES = {
    "main": MAIN,
    "helper": HELPER,
    "numbers": "TWO = 2\nTHREE = 3\n",
    "late": "def shout(text):\n    return text.upper()\n",
    "config": "class Config:\n    pass\n",
}


def forget():
    """Have all sources read again."""
    code._sources.cache_clear()
    code._parse.cache_clear()
    code._unit.cache_clear()


@pytest.fixture
def versions(tmp_path):
    """Write the little package with edits applied and return the units of its stage."""

    def of(**edits):
        forget()
        (tmp_path / "pipeline").mkdir(exist_ok=True)
        for name, source in FILES.items():
            for old, new in edits.get(name, {}).items():
                assert old in source
                source = source.replace(old, new)
            (tmp_path / "pipeline" / f"{name}.py").write_text(textwrap.dedent(source))
        return code_units(["pipeline.main:stage"], root=tmp_path)

    yield of
    forget()


def changed(before, after):
    return {unit for unit in {*before, *after} if before.get(unit) != after.get(unit)}


def test_every_first_party_name_that_is_reached_is_a_unit(versions):
    assert set(versions()) == {
        "pipeline/main.py stage",
        "pipeline/main.py LIMIT",
        "pipeline/helper.py clean",
        "pipeline/helper.py SUFFIX",
        "pipeline/helper.py Rule",
        "pipeline/numbers.py TWO",
        "pipeline/late.py shout",
    }


@pytest.mark.parametrize(
    ("edits", "unit"),
    [
        ({"main": {"LIMIT = 5": "LIMIT = 7"}}, "pipeline/main.py LIMIT"),
        ({"main": {"@cache\n": ""}}, "pipeline/main.py stage"),
        ({"helper": {"text.strip()": "text.lstrip()"}}, "pipeline/helper.py clean"),
        ({"helper": {'SUFFIX = "!"': 'SUFFIX = "?"'}}, "pipeline/helper.py SUFFIX"),
        ({"helper": {"len(text)": "len(text) + 1"}}, "pipeline/helper.py Rule"),
        ({"numbers": {"TWO = 2": "TWO = 2.0"}}, "pipeline/numbers.py TWO"),
        ({"late": {"upper": "lower"}}, "pipeline/late.py shout"),
    ],
)
def test_an_edit_of_something_reached_is_seen_and_named(versions, edits, unit):
    assert changed(versions(), versions(**edits)) == {unit}


@pytest.mark.parametrize(
    "edits",
    [
        {"main": {"# a comment": "# another, longer comment\n"}},
        {"main": {'"""What it does."""': '"""Something else."""'}},
        {"main": {'"""Docstring."""': '"""Other."""\n\n\n'}},
        {"main": {"return UNUSED": "return UNUSED + 1"}},
        {"main": {"UNUSED = 6": "UNUSED = 7"}},
        {"helper": {'    """A rule."""\n': ""}},
        {"helper": {"    pass": "    x = 1"}},
        {"numbers": {"THREE = 3": "THREE = 4"}},
        {"main": {"return shout(clean(text)[:LIMIT]": "return shout(\n        clean(text)[ : LIMIT]"}},
        {"config": {"pass": "x = 1"}},
    ],
)
def test_comments_docstrings_layout_and_unreached_code_do_not_count(versions, edits):
    assert changed(versions(), versions(**edits)) == set()


def test_a_definition_gone_or_new_is_a_change(versions):
    after = versions(main={"numbers.TWO": "numbers.THREE"})
    assert changed(versions(), after) == {
        "pipeline/main.py stage",
        "pipeline/numbers.py TWO",
        "pipeline/numbers.py THREE",
    }


def reached(folder, **sources):
    """The units that pipeline.main:stage reaches in a package of these sources."""
    forget()
    (folder / "pipeline").mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / "pipeline" / f"{name}.py").write_text(textwrap.dedent(source))
    return set(code_units(["pipeline.main:stage"], root=folder))


HELP = "def run():\n    return 1\ndef other():\n    return 2\n"


@pytest.mark.parametrize(
    ("main", "unit"),
    [
        (
            "def run():\n    pass\ndef other():\n    from subprocess import run\ndef stage():\n    run()\n",
            "main.py run",
        ),
        (
            "try:\n    from pipeline.help import run\nexcept ImportError:\n    run = 1\ndef stage():\n    run()\n",
            "help.py run",
        ),
        ("import pipeline.help as h\ndef stage():\n    m = h\n    m.run()\n", "help.py run"),
        ("from pipeline import help as h\ndef stage():\n    getattr(h, 'run')()\n", "help.py run"),
        ("def stage():\n    import pipeline.help\n    pipeline.help.run()\n", "help.py run"),
    ],
)
def test_roundabout_ways_to_a_helper_are_followed(tmp_path, main, unit):
    assert f"pipeline/{unit}" in reached(tmp_path, main=main, help=HELP)


def test_the_place_of_a_module_is_not_what_it_does(tmp_path):
    main = "import pipeline.help as h\ndef stage():\n    return h.__file__\n"
    assert reached(tmp_path, main=main, help=HELP) == {"pipeline/main.py stage"}


def test_an_import_of_everything_is_an_error_not_a_guess(tmp_path):
    with pytest.raises(LookupError, match=r"imports \* from pipeline.help"):
        reached(tmp_path, main="from pipeline.help import *\ndef stage():\n    run()\n", help=HELP)


def test_execution_fields_of_a_config_do_not_count(versions):
    fields = '    """A rule."""\n    workers: int = execution(3)\n'
    assert changed(versions(), versions(helper={'    """A rule."""\n': fields})) == set()


def test_an_entry_that_names_nothing_is_an_error(versions):
    versions()
    with pytest.raises(LookupError, match=r"there is no pipeline\.nowhere:f"):
        code_units(["pipeline.nowhere:f"])


def test_the_serialisation_is_the_same_on_every_python(versions):
    """Golden hashes: a Python that parses into other trees, or a change of ours, would re-run everyone's stages."""
    assert versions()["pipeline/main.py stage"] == "82f5c8e11636eb28"
    assert versions()["pipeline/helper.py Rule"] == "f943b51a7347d438"


def test_kept_units_are_read_again_only_where_a_source_changed(versions, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    entry = "pipeline.main:stage"
    units = versions()
    assert kept_units([entry], tmp_path) == units
    with monkeypatch.context() as patched:
        patched.setattr(code, "code_units", lambda *_: pytest.fail("it was kept"))
        assert kept_units([entry], tmp_path) == units
    edited = versions(late={"text.upper()": "text.lower()"})
    assert kept_units([entry], tmp_path) == edited != units


def test_units_of_sources_that_changed_meanwhile_are_not_kept(versions, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    unedited = versions()
    code._sources(tmp_path, code.FIRST_PARTY)
    late = tmp_path / "pipeline" / "late.py"
    source = late.read_text()
    late.write_text(source.replace("upper", "lower"))
    code._parse.cache_clear()
    code._unit.cache_clear()
    assert kept_units(["pipeline.main:stage"], tmp_path) != unedited
    late.write_text(source)
    forget()
    assert kept_units(["pipeline.main:stage"], tmp_path) == unedited


def test_an_editors_lock_is_no_source(versions, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    units = versions()
    (tmp_path / "pipeline" / ".#late.py").symlink_to("somebody@somewhere.1234")
    assert kept_units(["pipeline.main:stage"], tmp_path) == units


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sources": 1}'])
def test_a_damaged_file_of_kept_units_is_made_anew(versions, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    units = versions()
    kept_units(["pipeline.main:stage"], tmp_path)
    [kept] = (tmp_path / "caches" / "gptmill").iterdir()
    kept.write_text(damage)
    assert kept_units(["pipeline.main:stage"], tmp_path) == units
    assert kept.stat().st_size > len(damage)


def nobodys_home():
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [Path("/dev/null").home, nobodys_home])
def test_units_are_told_where_none_can_be_kept(versions, tmp_path, monkeypatch, home):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(Path, "home", home)
    units = versions()
    assert kept_units(["pipeline.main:stage"], tmp_path) == units
