"""The forms of requests: OpenAI's embeddings, and text-embeddings-inference's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# A text that is none would be two special tokens, which say nothing.
Text = Annotated[str, StringConstraints(min_length=1)]
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Pair = Annotated[list[Text], Field(min_length=1, max_length=2)]


class Asked(BaseModel):
    """What every request may name: the model, the first that can answer unless given."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    model: str | None = None


class Embed(Asked):
    """Vectors of texts."""

    inputs: Text | Annotated[list[Text], Field(min_length=1)]
    truncate: bool = False
    normalize: bool = True


class OpenAIEmbeddings(Asked):
    """`POST /v1/embeddings`: texts, or ids of tokens."""

    input: Text | Annotated[list[Text], Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    # Not OpenAI's: whether longer texts are cut and not refused.
    truncate: bool = False
    user: str | None = None


class Predict(Asked):
    """Labels of a text, of texts in lists of one, or of pairs in lists of two."""

    inputs: Text | Annotated[list[Pair], Field(min_length=1)] | Pair
    raw_scores: bool = False
    truncate: bool = False


class Rerank(Asked):
    """Texts by how well they answer a query."""

    query: Text
    texts: Annotated[list[Text], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool = False


class Fill(Asked):
    """A text with masks."""

    inputs: Text
    top: Annotated[int, Field(ge=1, le=100)] = 5


class Tag(Asked):
    """Texts whose tokens have labels."""

    inputs: Text | Annotated[list[Text], Field(min_length=1)]


class Question(Asked):
    """A question on a text."""

    question: Text
    context: Text
