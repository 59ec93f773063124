"""What a request may have, and what may wait."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bertloom.errors import InputError
from bertloom.model.packed import TOKENS_AT_ONCE


@dataclass(frozen=True)
class Limits:
    """What a request may have, and what may wait: tokens of a batch and of the queue, texts and bytes of a request,
    seconds until it is answered, the key that it must show, and origins whose pages may ask."""

    tokens: int = TOKENS_AT_ONCE
    waiting: int = 65_536
    texts: int = 512
    bytes: int = 1_000_000
    seconds: float = 60.0
    key: str = ""
    origins: tuple[str, ...] = ()
    page: bool = True

    def __post_init__(self) -> None:
        for name in ("tokens", "waiting", "texts", "bytes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} given, at least 1 allowed")
        if not 0 < self.seconds < math.inf:
            raise InputError(f"seconds: {self.seconds} given, above 0 allowed")
