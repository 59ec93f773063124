from __future__ import annotations

import pytest

from bertloom.text.sentences import language_of, sentences


@pytest.mark.parametrize(
    ("paragraph", "want"),
    [
        ("Dr. Smith paid 3.5 dollars. He left! Why?", ["Dr. Smith paid 3.5 dollars.", "He left!", "Why?"]),
        ("안녕하세요. 저는 학생입니다. 반갑습니다!", ["안녕하세요.", "저는 학생입니다.", "반갑습니다!"]),
        ("今日は。元気です。", ["今日は。", "元気です。"]),
        ("  \t ", []),
    ],
)
def test_sentences(paragraph: str, want: list[str]) -> None:
    assert list(sentences([paragraph])) == want


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("plain", "en"),
        ("naïve café", "en"),
        ("한국어 문장 and more", "ko"),
        ("これは文です", "ja"),
        ("这是句子", "zh"),
        ("Это", "ru"),
        ("서울 is less than a fifth", "en"),
        ("서울 is so", "ko"),
    ],
)
def test_language_by_script(text: str, code: str) -> None:
    assert language_of(text) == code


def test_named_language_is_used() -> None:
    assert list(sentences(["This is it. And on."], "de")) == ["This is it.", "And on."]
