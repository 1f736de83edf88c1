import pytest
from tests.refusal import refused

from scripts.cases.splits import assign_at_random, decide_splits, read_splits

PATIENTS = [f"p{i}" for i in range(40)]


def write(path, text):
    path.write_text(text)
    return path


def rows(*names):
    return {name: {"case": name, "patient": name} for name in names}


def test_random_splits_have_the_counts_asked_for_and_depend_on_the_seed_alone():
    first = assign_at_random(PATIENTS, {}, val=0.1, test=7, seed=1)
    assert [list(first.values()).count(s) for s in ("train", "val", "test")] == [29, 4, 7]
    assert first == assign_at_random(reversed(PATIENTS), {}, val=0.1, test=7, seed=1)
    assert first != assign_at_random(PATIENTS, {}, val=0.1, test=7, seed=2)


def test_new_patients_never_move_known_ones():
    known = assign_at_random(PATIENTS[:20], {}, val=0.2, test=0.2, seed=0)
    later = assign_at_random(PATIENTS, known, val=0.2, test=0.2, seed=9)
    assert {p: later[p] for p in known} == known
    assert [list(later.values()).count(s) for s in ("train", "val", "test")] == [24, 8, 8]


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0), (1.5, 0), (30, 20), (0.6, 0.6)])
def test_impossible_counts_are_refused(val, test):
    with pytest.raises(ValueError, match="splits: "):
        assign_at_random(PATIENTS, {}, val=val, test=test, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns name and split"),
        ("name,part\na,train\n", r"got the columns \['name', 'part'\]"),
        ("name,split\na,training\n", "'a' .*one of"),
        ("name,split\na,train\na,test\n", "'a' appears twice"),
        ("name,split,patient\na,train,P\nb,test,P\n", "'P' .*train and in test"),
    ],
)
def test_a_table_that_could_leak_patients_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_splits(write(tmp_path / "splits.csv", text))


def test_a_table_row_may_name_a_case_or_a_patient(tmp_path):
    table = write(tmp_path / "splits.csv", "name,split,patient\nscan,test,P1\nP2,val,\n")
    found = rows("scan") | {"P2_0a": {"case": "P2_0a", "patient": "P2"}, "P2_0b": {"case": "P2_0b", "patient": "P2"}}
    decide_splits(found, {}, table, val=0, test=0, seed=0)
    assert [(r["patient"], r["split"]) for r in found.values()] == [("P1", "test"), ("P2", "val"), ("P2", "val")]


def test_a_scan_without_a_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no row for \['b'\]"):
        decide_splits(rows("a", "b"), {}, write(tmp_path / "splits.csv", "name,split\na,train\n"), 0, 0, 0)


def test_a_table_cannot_move_a_patient_of_an_earlier_run(tmp_path):
    known = {"a": {"case": "a", "patient": "a", "split": "test"}}
    with refused(ValueError, "in test", "never moves"):
        decide_splits(rows("a"), known, write(tmp_path / "splits.csv", "name,split\na,train\n"), 0, 0, 0)


def test_a_case_keeps_the_patient_and_split_of_an_earlier_table():
    known = {"a": {"case": "a", "patient": "P", "split": "test"}, "b": {"case": "b", "patient": "P", "split": "test"}}
    found = rows("a", "c")
    decide_splits(found, known, None, val=0, test=0, seed=0)
    assert [(r["patient"], r["split"]) for r in found.values()] == [("P", "test"), ("c", "train")]
