"""The account of a batch, whatever its exams are called."""

from scripts.results.ledger import Ledger


def test_an_exam_whose_name_is_no_text_is_accounted_for(tmp_path):
    with Ledger(tmp_path, 2, None) as ledger:
        ledger.add({"exam": "M\u00fcller", "status": "ok"})
        ledger.add({"exam": "M\udcfcller", "status": "ok"})
    assert (tmp_path / "summary.csv").read_text("utf-8").split() == ["exam,status", "M\u00fcller,ok", "M?ller,ok"]


def test_an_exam_whose_name_is_a_formula_is_accounted_for_as_text(tmp_path):
    with Ledger(tmp_path, 2, None) as ledger:
        ledger.add({"exam": "=HYPERLINK(1)", "seconds": -1.0})
        ledger.add({"exam": "@patient", "seconds": 2.0})
        before = (tmp_path / "summary.csv").read_text()
    assert before.split() == ["exam,seconds", "'=HYPERLINK(1),-1", "'@patient,2"]
    assert (tmp_path / "summary.csv").read_text() == before
