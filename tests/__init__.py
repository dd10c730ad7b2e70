"""The tests; what several of them share is in ``tests.support``."""

import pytest

# Before its modules are imported, so that a failing assertion in them shows its values.
pytest.register_assert_rewrite("tests.support")
