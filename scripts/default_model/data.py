"""Token rows for training and for evaluation; both are pure functions of corpus and seed."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from scripts.default_model.conversations import END_OF_TEXT, conversations
from scripts.default_model.corpus import Corpus, Document

CHAT_SHARE = 0.07


class Streams(NamedTuple):
    """Training texts as token ids, one array a text, each closed by the end-of-text token."""

    documents: list[np.ndarray]
    chats: list[np.ndarray]

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, conversations included."""
        return sum(map(len, self.documents)) + sum(map(len, self.chats))


def training_streams(corpus: Corpus, tokenizer: Tokenizer, seed: int) -> Streams:
    """Encode the training documents, and as many conversations as make up CHAT_SHARE of all."""
    documents = encode([document.text for document in corpus.training], tokenizer)
    chats = encode(conversations(corpus.training, seed), tokenizer)
    allowed = sum(map(len, documents)) * CHAT_SHARE / (1 - CHAT_SHARE)
    sizes = np.cumsum([len(chat) for chat in chats])
    return Streams(documents, chats[: int(np.searchsorted(sizes, allowed))])


def encode(texts: list[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Token ids of each text and its closing token."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    return [np.array([*each.ids, end], dtype=np.int64) for each in tokenizer.encode_batch(texts)]


class Rows:
    """Training rows of one length; row `i` is the same whenever and wherever it is asked for."""

    def __init__(self, streams: Streams, row_len: int, seed: int) -> None:
        self.streams = streams
        self.row_len = row_len
        self.seed = seed
        # One row less than fits, so that every epoch can start at another offset.
        self.num_rows = (streams.num_tokens - 1) // row_len - 1
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, epoch: int) -> np.ndarray:
        """All rows of one epoch [N, row_len + 1]: texts shuffled, joined, cut, rows shuffled."""
        rng = np.random.default_rng((self.seed, self.row_len, epoch))
        texts = [*self.streams.documents, *self.streams.chats]
        stream = np.concatenate([texts[i] for i in rng.permutation(len(texts))])
        starts = rng.integers(self.row_len) + self.row_len * rng.permutation(self.num_rows)
        rows: np.ndarray = stream[starts[:, None] + np.arange(self.row_len + 1)]
        return rows

    def take(self, first: int, count: int) -> Tensor:
        """Rows first, first + 1, ... [count, row_len + 1], running on through the epochs."""
        places = (divmod(i, self.num_rows) for i in range(first, first + count))
        return torch.from_numpy(np.stack([self.epoch(epoch)[i] for epoch, i in places]))


def held_out_stream(documents: list[Document], tokenizer: Tokenizer) -> np.ndarray:
    """The held-out documents in order of name, an end-of-text token before, between and after."""
    start = np.array([tokenizer.token_to_id(END_OF_TEXT)], dtype=np.int64)
    return np.concatenate([start, *encode([document.text for document in documents], tokenizer)])
