"""Lists that grow by a line, whatever a kill did to the last one."""

from flows import logs


def test_what_was_added_is_read_in_order(tmp_path):
    for number in range(3):
        logs.append(tmp_path / "list.jsonl", {"number": number, "text": "ü\u2028"})
    assert logs.read(tmp_path / "list.jsonl") == [{"number": number, "text": "ü\u2028"} for number in range(3)]


def test_a_row_after_one_that_was_cut_off_is_not_lost(tmp_path):
    path = tmp_path / "list.jsonl"
    logs.append(path, {"number": 0})
    with path.open("ab") as file:
        file.write('{"number": 1, "text": "ü'.encode()[:-1])
    logs.append(path, {"number": 2})
    assert logs.read(path) == [{"number": 0}, {"number": 2}]


def test_a_list_that_is_not_there_has_no_rows(tmp_path):
    assert logs.read(tmp_path / "none.jsonl") == []
