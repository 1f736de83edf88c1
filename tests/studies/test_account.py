"""A study loses no case in silence, and one that fails costs no other."""

import pytest

from scripts.io.errors import SomeFailed
from scripts.studies.account import Account, named


def test_a_case_that_fails_is_noted_and_the_others_go_on():
    account = Account({"x": "x: no CT"})
    for name in "abc":
        with account.case(name), named(name):
            if name == "b":
                raise ValueError("NaN")
            account.rows.append({"case": name})
    assert account.failures == {"x": "x: no CT", "b": "b: NaN"} and account.measured == 2
    with pytest.raises(SomeFailed, match="^2 of 4 cases failed:\nx: no CT\nb: NaN$"):
        account.close()


def test_without_a_failure_nothing_is_raised():
    account = Account()
    with account.case("a"):
        account.rows.append({"case": "a"})
    account.require(account.rows)
    account.close()
    assert account.failures == {} and account.done == {"a"}


def test_nothing_measured_is_refused_with_every_failure():
    account = Account({"x": "x: no CT", "y": "y: no CT"})
    with pytest.raises(ValueError, match="^no case .*:\nx: no CT\ny: no CT$"):
        account.require(account.rows)


def test_an_error_of_the_program_is_no_failure_of_the_case():
    with pytest.raises(KeyError), Account().case("a"):
        raise KeyError("typo")
