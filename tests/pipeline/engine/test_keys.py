"""Keys and digests: the same for the same values, everywhere; unstable values refused."""

import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.keys import canonical_json, content_digest, file_sha256, fingerprint

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)

GOLDEN_VALUE = {"stage": "extract", "config": {"lr": 6e-4, "on": True, "names": ["ä", "b"], "none": None}, "n": 3}


def test_a_golden_value_keeps_its_key_for_good():
    assert fingerprint(GOLDEN_VALUE) == "5fb71c07b9d36a68c2d940e08218e90a"


def test_a_golden_set_of_files_keeps_its_digest_for_good():
    digest = content_digest([("b/x.arrow", 3, "00" * 32), ("a/y.bin", 4, "ff" * 32)])
    assert digest == "82f8c5ee0271a19908bfeadef8f5126d803b45e9db08df60f17ec3d9c2d8543d"


def test_keys_do_not_depend_on_the_hash_seed_of_the_process():
    code = f"from pipeline.engine.keys import fingerprint; print(fingerprint({GOLDEN_VALUE!r}))"
    keys = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(keys) == 1


@given(st.dictionaries(st.text(), plain))
def test_the_order_of_a_dict_does_not_enter_a_key(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


@given(plain, plain)
def test_different_values_have_different_keys(one, other):
    same_json = canonical_json(one) == canonical_json(other)
    assert (fingerprint(one) == fingerprint(other)) == same_json


@pytest.mark.parametrize("unstable", [{1, 2}, object(), math.nan, math.inf, b"bytes", {1: 2}, [{"a": {3}}]])
def test_a_value_without_a_canonical_form_is_refused(unstable):
    with pytest.raises(TypeError, match=r"canonical form|no string"):
        fingerprint({"value": unstable})


@given(st.permutations([("a", 1, "x"), ("b", 2, "y"), ("c/d", 3, "z")]))
def test_the_order_of_files_does_not_enter_a_digest(files):
    assert content_digest(files) == content_digest(sorted(files))


def test_a_files_hash_is_its_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert file_sha256(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")
