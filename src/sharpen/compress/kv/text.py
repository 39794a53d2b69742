"""One text read under a policy, with a cache of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpen.compress.kv.policy import KVPolicy
from sharpen.compress.kv.retention import Retention
from sharpen.core.errors import ConfigError
from sharpen.models.decode import InferenceLM
from sharpen.models.paged import PagedCache, PagedPart

__all__ = ["KeptText"]


class KeptText:
    """Reads a prompt, then what follows it, and stores what the policy keeps.

    Args:
        model: prepared for inference.
        policy: None keeps everything.
        prompt_tokens: of the prompt.
        new_tokens: that may follow it.
        part_tokens: of one pass, at most.
        block_size: tokens of a block of the cache.

    Raises:
        ConfigError: the policy cannot serve the model.

    Example::

        text = KeptText(model, SnapKVPolicy(EvictionConfig(budget=512)), len(ids), new_tokens=1)
        logits = text.read(ids)
    """

    def __init__(
        self,
        model: InferenceLM,
        policy: KVPolicy | None,
        prompt_tokens: int,
        *,
        new_tokens: int = 0,
        part_tokens: int = 512,
        block_size: int = 16,
    ) -> None:
        total = prompt_tokens + new_tokens
        self._model = model
        self._part_tokens = part_tokens
        self._total = total
        self._prompt_tokens = prompt_tokens
        self.retention: Retention | None = None
        units = total
        if policy is not None:
            policy.check(model.spec)
            retention = Retention(policy, prompt_tokens, model.spec.num_layers)
            if retention.plan.evicts:
                self.retention = retention
                units = retention.plan.most(0, total)
        count = -(-units // block_size)
        self.cache: PagedCache = model.new_paged_cache(count, block_size)
        self.computed = 0
        self._blocks = list(range(count))

    @property
    def num_bytes(self) -> int:
        """Of the keys and values: the most that are stored at any time."""
        layers = range(self._model.spec.num_layers)
        return sum(buffer.nbytes for i in layers for buffer in self.cache.buffers(i))

    def rewind(self) -> None:
        """Go back to the end of the prompt, to read something else after it.

        Raises:
            ConfigError: the prompt has not been read yet.
        """
        if self.computed < self._prompt_tokens:
            raise ConfigError(
                f"{self.computed} of {self._prompt_tokens} tokens of the prompt have been read; "
                "there is nothing after it to forget."
            )
        self.computed = self._prompt_tokens

    def read(self, ids: Sequence[int], *, wanted: int = 1) -> Tensor:
        """Read the next tokens.

        Args:
            ids: at least one.
            wanted: of the last so many, logits are returned.

        Returns:
            [wanted, V] logits.

        Raises:
            ConfigError: there are more than were announced.
        """
        if self.computed + len(ids) > self._total:
            raise ConfigError(
                f"{self.computed + len(ids)} tokens, and {self._total} were announced. Raise "
                "new_tokens."
            )
        found = []
        done = 0
        while done < len(ids):
            count = min(len(ids) - done, self._part_tokens)
            watcher, dropped = None, 0
            if self.retention is not None:
                plan = self.retention.plan
                border = plan.next_border(self.computed)
                if border is not None:
                    count = min(count, border - self.computed)
                    watcher = self.retention
                dropped = plan.dropped(self.computed)
            end = done + count
            part = PagedPart(
                ids[done:end],
                self.computed,
                self._blocks,
                wanted=max(0, min(count, end - len(ids) + wanted)),
                dropped=dropped,
                watcher=watcher,
            )
            found.append(self._model.paged([part], self.cache))
            self.computed += count
            done = end
            if self.retention is not None:
                self.retention.drop(self.cache, self._blocks, self.computed)
        return torch.cat(found)
