"""Small models that looking inside has too."""

from tests.inspect.conftest import runs  # noqa: F401
