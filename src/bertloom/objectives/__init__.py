"""What pretraining learns: masked tokens, next sentences, and their combinations."""

from bertloom.objectives.combined import Combined

__all__ = ["Combined"]
