"""The pool of key/value blocks: who holds which, and which still hold a known prefix.

A block holds the keys and values of ``size`` consecutive tokens in every layer. A full block is
known by a chain of hashes over all tokens up to its end (Kwon et al., Efficient Memory Management
for LLM Serving with PagedAttention, SOSP 2023, arXiv 2309.06180, section 4.4)::

    h_i = H(h_(i-1), tokens of block i),    h_(-1) = H(what else decides the contents)

H is BLAKE2b with 128 bits and a random key of the pool's own, so that nobody can make two prefixes
meet. Freed blocks keep their contents and are handed out again in the order they were freed, tails
of sequences first; until then a sequence with the same prefix takes them back. Those with unknown
contents go before all others, the last one first: its memory has been used, and may be in a cache.

All operations take constant time a block. Blocks are numbers here; the tensors lie elsewhere.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from sharpen.core.errors import ConfigError

__all__ = ["BlockPool"]


class BlockPool:
    """Blocks 0 .. ``count`` - 1.

    Args:
        count: blocks in all.
        size: tokens a block.

    Raises:
        ConfigError: ``count`` or ``size`` is below 1.
    """

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ConfigError(f"{count} blocks of {size} tokens: both must be at least 1.")
        self.count = count
        self.size = size
        self._key = os.urandom(32)
        self._free: OrderedDict[int, None] = OrderedDict((i, None) for i in range(count))
        self._holders = [0] * count
        self._by_hash: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, with or without known contents."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Blocks that are held."""
        return self.count - len(self._free)

    def holders(self, block: int) -> int:
        """How many hold a block."""
        return self._holders[block]

    def root(self, extra: str = "") -> bytes:
        """Start of a chain of hashes.

        Args:
            extra: whatever beside the tokens decides the contents: adapter, tenant, policy.
        """
        return blake2b(extra.encode(), digest_size=16, key=self._key).digest()

    def chain(self, previous: bytes, tokens: Sequence[int]) -> bytes:
        """Hash of the block of ``tokens`` that follows the block of hash ``previous``."""
        made = blake2b(previous, digest_size=16, key=self._key)
        made.update(array("q", tokens).tobytes())
        return made.digest()

    def find(self, hashes: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known prefix of a chain; nobody holds them yet for that."""
        found = []
        for one in hashes:
            block = self._by_hash.get(one)
            if block is None:
                break
            found.append(block)
        return found

    def num_needed(self, blocks: Sequence[int]) -> int:
        """How many of these would leave the free ones when they are taken back."""
        return sum(1 for block in blocks if not self._holders[block])

    def take(self, count: int) -> list[int]:
        """New blocks; what the oldest free ones held is forgotten.

        Raises:
            ConfigError: fewer are free.
        """
        if count > len(self._free):
            raise ConfigError(f"{count} blocks were asked for and {len(self._free)} are free.")
        taken = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            known = self._hash_of.pop(block, None)
            if known is not None:
                del self._by_hash[known]
            self._holders[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """Hold blocks that :meth:`find` gave, each once more."""
        for block in blocks:
            if not self._holders[block]:
                del self._free[block]
            self._holders[block] += 1

    def release(self, blocks: Sequence[int], *, forget: bool = False) -> None:
        """Give up the blocks of a sequence, first to last; its tail is handed out first.

        Args:
            blocks: held.
            forget: know their contents no more, where nobody else holds them.
        """
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            known = self._hash_of.pop(block, None) if forget else None
            if known is not None:
                del self._by_hash[known]
            self._free[block] = None
            if block not in self._hash_of:
                self._free.move_to_end(block, last=False)

    def know(self, block: int, known: bytes) -> None:
        """A held block is full and its contents are those of the hash.

        Where another block is known by that hash already, this one stays unknown.
        """
        if known not in self._by_hash and block not in self._hash_of:
            self._by_hash[known] = block
            self._hash_of[block] = known

    def forget(self) -> None:
        """Know no contents any more, for example because the weights changed."""
        self._by_hash.clear()
        self._hash_of.clear()
