"""What pretraining learns, one file for each thing; an objective is known by standing in `PARTS`."""

from bertloom.objectives.combined import PARTS, Combined, heads_of, model_of, parts_of, published_objective, taught

__all__ = ["PARTS", "Combined", "heads_of", "model_of", "parts_of", "published_objective", "taught"]
