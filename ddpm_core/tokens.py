"""Captions as numbers, word by word. Chapter 10."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from jaxtyping import Int
from torch import Tensor

from ddpm_core.checking import quoted

Tokens = Int[Tensor, "b l"]
"""A row of numbers for each caption: BEGIN, its words, END, and PAD to the end."""

PAD, BEGIN, END = 0, 1, 2
SPECIAL = 3  # how many numbers stand for no word


@dataclass(frozen=True)
class Tokenizer:
    """Turns captions into rows of `length` numbers, one a word of its vocabulary.

    Case and punctuation are ignored; the empty caption has only BEGIN and END. Raises
    ValueError for a vocabulary with a word twice. Chapter 10.
    """

    words: tuple[str, ...]
    length: int

    def __post_init__(self):
        if len(set(self.words)) != len(self.words):
            raise ValueError(f"a word occurs twice in the vocabulary {self.words}")

    @classmethod
    def of(cls, captions: Iterable[str], length: int) -> "Tokenizer":
        """Collect the words of these captions."""
        return cls(tuple(sorted({w for c in captions for w in split_words(c)})), length)

    @property
    def size(self) -> int:
        """How many numbers there are, those for no word included."""
        return SPECIAL + len(self.words)

    def __call__(self, captions: Sequence[str]) -> Tokens:
        """Return a row for each caption.

        Raises ValueError for an unknown word, with the known ones nearest to it, and
        for a caption with more than length - 2 words.
        """
        if isinstance(captions, str):  # it would be read letter by letter
            raise TypeError(f"captions must be a list of them, got {quoted(captions)}")
        rows = [self._row(caption) for caption in captions]
        return torch.tensor(rows).view(len(rows), self.length)

    def _row(self, caption: str) -> list[int]:
        words = split_words(caption)
        if len(words) > self.length - 2:
            raise ValueError(
                f"{caption!r} has {len(words)} words, at most {self.length - 2} fit"
            )
        row = [BEGIN, *(self._number(word) for word in words), END]
        return row + [PAD] * (self.length - len(row))

    def _number(self, word: str) -> int:
        if word in self.words:
            return SPECIAL + self.words.index(word)
        near = get_close_matches(word, self.words, n=3, cutoff=0.7)
        known = f"do you mean {' or '.join(near)}?" if near else "none is like it."
        raise ValueError(
            f"unknown word {word!r}: {known} All words: {', '.join(self.words)}"
        )


def split_words(caption: str) -> list[str]:
    """The words of a caption in lower case."""
    return re.findall(r"[\w']+", caption.lower())
