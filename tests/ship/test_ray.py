"""How many replicas the service may have under Ray Serve."""

from __future__ import annotations

import pytest

from bertloom.errors import InputError
from bertloom.ship.serve.ray import bounds


def test_replicas() -> None:
    assert (bounds("2"), bounds("1-4")) == ((2, 2), (1, 4))
    for bad in ("0", "4-1", "many", "1-", ""):
        with pytest.raises(InputError, match=f"replicas: {bad!r} given"):
            bounds(bad)
