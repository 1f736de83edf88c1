"""Check that an error names the file or option, the value received, and a key term of the rule or remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[BaseException] | tuple[type[BaseException], ...], *fragments: str) -> Iterator:
    """Assert that the block raises ``kind`` with every fragment in its message, in any order and wording."""
    with pytest.raises(kind) as caught:
        yield caught
    missing = [fragment for fragment in fragments if fragment not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"
