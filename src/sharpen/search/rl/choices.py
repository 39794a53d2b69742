"""A configuration as the choices of a policy: what a network puts out, and what its numbers mean.

Each parameter of a space is one choice, a subset one for each item. By the kind of parameter::

    few values      softmax over the values: categorical, ordinal, bool, a short integer or stepped
                    range; at most `resolution` of them
    subset          softmax over out and in, for each item
    permutation     Plackett-Luce: items without replacement, each in proportion to exp(score)
    other ranges    "bins": softmax over `resolution` equal cells of the unit interval, and the
                    value uniform within the cell;
                    "beta": Beta(1 + softplus(a), 1 + softplus(b)) on the unit interval, a density
                    without a second mode at a bound (Po-Wei Chou, Daniel Maturana and Sebastian
                    Scherer, "Improving Stochastic Policy Gradients in Continuous Control with Deep
                    Reinforcement Learning using the Beta Distribution", ICML 2017)

Every value of every parameter can be drawn: a level stands for one value or for a cell of the
range, never for a rounded real number. A parameter with one value is no choice.

Time and memory O(B L) for B configurations and L numbers of a policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.collections import Permutation
from sharpen.core.errors import ConfigError
from sharpen.core.parameters import Categorical, Parameter
from sharpen.core.space import Space

__all__ = ["Actions", "Choice", "Choices", "Ranges", "in_order"]

Floats = npt.NDArray[np.float64]
Ranges = Literal["bins", "beta"]

_LEAST = 1e-9  # a Beta's density may vanish at a bound


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One choice of a policy."""

    name: str
    """The parameter it belongs to."""

    columns: slice
    """Its coordinates in the unit cube."""

    kind: Literal["values", "bins", "beta", "order"]
    """What its numbers mean; see the module."""

    width: int
    """How many numbers of the policy it takes."""

    grid: Floats | None = None
    """[width] the coordinate of each value, of kind ``values``."""


@dataclass(frozen=True, slots=True, eq=False)
class Actions:
    """[B] configurations as what was chosen."""

    levels: Tensor
    """[B, softmaxes] level of each choice that is a softmax."""

    units: Tensor
    """[B, betas] value of each choice on the unit interval."""

    orders: tuple[Tensor, ...]
    """[B, n] the items in their order, for each choice that is one."""

    features: Tensor
    """[B, F] what networks read: one-hot levels, values on the unit interval, places of items."""

    def at(self, rows: Tensor) -> Actions:
        """Those of some rows."""
        orders = tuple(order[rows] for order in self.orders)
        return Actions(self.levels[rows], self.units[rows], orders, self.features[rows])


def in_order(space: Space) -> list[str]:
    """Names of a space's parameters, each after those that its condition names."""
    left, found = list(space), list[str]()
    while left:
        for name in left:
            condition = space[name].condition
            if condition is None or set(condition.names()) <= set(found):
                break
        left.remove(name)
        found.append(name)
    return found


class Choices:
    """How a policy's numbers become configurations of a space; see the module.

    Args:
        space: of the configurations; d coordinates.
        resolution: most values of a softmax over values; cells of a longer range.
        ranges: what is done with longer ranges.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, space: Space, resolution: int = 16, ranges: Ranges = "bins") -> None:
        if resolution < 2:
            raise ConfigError(f"resolution={resolution} must be at least 2.")
        if ranges not in ("bins", "beta"):
            raise ConfigError(f"ranges={ranges!r} must be 'bins' or 'beta'.")
        self.space = space
        self.choices: list[Choice] = []
        for name in in_order(space):
            parameter, columns = space[name], space.columns[name]
            if parameter.cardinality > 1:
                self.choices += _choices_of(name, parameter, columns, resolution, ranges)
        self.starts = np.cumsum([0, *(c.width for c in self.choices)])
        self.num_outputs = int(self.starts[-1])
        self._softmaxes = [i for i, c in enumerate(self.choices) if c.kind in ("values", "bins")]
        self._betas = [i for i, c in enumerate(self.choices) if c.kind == "beta"]
        self._orders = [i for i, c in enumerate(self.choices) if c.kind == "order"]
        # Softmaxes of different widths as rows of one table: where each number stands, or none.
        widths = [self.choices[i].width for i in self._softmaxes]
        places = np.zeros((len(widths), max(widths, default=0)), dtype=np.int64)
        there = np.zeros(places.shape, dtype=bool)
        for row, (i, width) in enumerate(zip(self._softmaxes, widths, strict=True)):
            places[row, :width] = self.starts[i] + np.arange(width)
            there[row, :width] = True
        self._places, self._there = torch.from_numpy(places), torch.from_numpy(there)
        # Back from kinds to the order of the choices.
        kinds = [*self._softmaxes, *self._betas, *self._orders]
        self._back = torch.from_numpy(np.argsort(np.array(kinds, dtype=np.int64)))
        sizes = [1 if c.kind == "beta" else c.width for c in self.choices]
        self.feature_starts = np.cumsum([0, *sizes])
        self.num_features = int(self.feature_starts[-1])
        self._feature_choice = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))

    def __len__(self) -> int:
        return len(self.choices)

    def spread(self, by_choice: Tensor) -> Tensor:
        """[B, F] the number of each feature's choice, from [B, C]."""
        return by_choice[:, self._feature_choice]

    # -- configurations -> actions --------------------------------------------------------------

    def level(self, choice: Choice, u: float) -> int:
        """The level of a softmax that holds the coordinate ``u``."""
        if choice.kind == "values" and choice.grid is not None:
            parameter = self.space[choice.name]
            if parameter.width == 1:
                u = parameter.encode(parameter.decode([u]))[0]
            return int(np.abs(choice.grid - u).argmin())
        return min(int(u * choice.width), choice.width - 1)

    def active(self, mask: npt.NDArray[np.bool_]) -> Tensor:
        """[B, C] as numbers, whether each choice counts, from [B, d] active coordinates."""
        starts = [choice.columns.start for choice in self.choices]
        return torch.from_numpy(mask[:, starts].astype(np.float64))

    def actions(self, x: Floats) -> Actions:
        """What was chosen at [B, d] points of the unit cube."""
        levels = [
            [self.level(self.choices[i], u) for u in x[:, self.choices[i].columns.start]]
            for i in self._softmaxes
        ]
        units = [np.clip(x[:, self.choices[i].columns.start], _LEAST, 1 - _LEAST)
                 for i in self._betas]  # fmt: skip
        count = len(x)
        return Actions(
            torch.tensor(levels, dtype=torch.int64).reshape(-1, count).T,
            torch.from_numpy(np.array(units).reshape(-1, count).T),
            tuple(
                torch.from_numpy(np.argsort(x[:, self.choices[i].columns], axis=1, kind="stable"))
                for i in self._orders
            ),
            torch.from_numpy(np.array([self.features(row) for row in x]).reshape(count, -1)),
        )

    def features(self, x: Floats) -> Floats:
        """[F] what networks read of [d] coordinates."""
        found = np.zeros(self.num_features)
        for i, choice in enumerate(self.choices):
            self.put_features(found, i, x[choice.columns])
        return found

    def put_features(self, features: Floats, i: int, u: Floats) -> None:
        """Write those of choice ``i``, whose coordinates are ``u``, into [F]."""
        choice, start = self.choices[i], self.feature_starts[i]
        if choice.kind in ("values", "bins"):
            features[start + self.level(choice, float(u[0]))] = 1.0
        else:
            features[start : self.feature_starts[i + 1]] = u

    # -- the policy's numbers -------------------------------------------------------------------

    def _log_softmax(self, outputs: Tensor) -> Tensor:
        """[B, softmaxes, most levels] log-probabilities; minus infinity where there is no level."""
        logits = outputs[:, self._places].masked_fill(~self._there, -torch.inf)
        return torch.log_softmax(logits, dim=-1)

    def _beta(self, outputs: Tensor) -> torch.distributions.Beta:
        at = torch.from_numpy(self.starts[self._betas])
        shapes = [1 + torch.nn.functional.softplus(outputs[:, at + k]) for k in (0, 1)]
        return torch.distributions.Beta(shapes[0], shapes[1], validate_args=False)

    def log_prob(self, outputs: Tensor, actions: Actions) -> Tensor:
        """[B, C] log-probability or log-density of each choice.

        Args:
            outputs: [B, L] or [1, L] a policy's numbers.
            actions: of B configurations.
        """
        count = len(actions.features)
        parts: list[Tensor] = []
        if self._softmaxes:
            log_p = self._log_softmax(outputs).expand(count, -1, -1)
            parts.append(log_p.gather(2, actions.levels[:, :, None])[:, :, 0])
        if self._betas:
            beta = self._beta(outputs)
            parts.append(beta.log_prob(actions.units))  # type: ignore[no-untyped-call]
        for i, order in zip(self._orders, actions.orders, strict=True):
            scores = outputs[:, self.starts[i] : self.starts[i + 1]].expand(count, -1)
            scores = scores.gather(1, order)
            # The items that are left at each place are those from it on.
            left = scores.flip(1).logcumsumexp(1).flip(1)
            parts.append((scores - left).sum(1, keepdim=True))
        return torch.cat(parts, dim=1)[:, self._back]

    def entropy(self, outputs: Tensor) -> Tensor:
        """[B, C] entropy of each choice; of a permutation, that of its first item."""
        parts: list[Tensor] = []
        if self._softmaxes:
            log_p = self._log_softmax(outputs)
            parts.append(-(log_p.exp() * log_p.masked_fill(~self._there, 0.0)).sum(2))
        if self._betas:
            parts.append(self._beta(outputs).entropy())  # type: ignore[no-untyped-call]
        for i in self._orders:
            log_p = torch.log_softmax(outputs[:, self.starts[i] : self.starts[i + 1]], dim=1)
            parts.append(-(log_p.exp() * log_p).sum(1, keepdim=True))
        return torch.cat(parts, dim=1)[:, self._back]

    def draw(self, i: int, outputs: Floats, rng: np.random.Generator) -> Floats:
        """Coordinates drawn for choice ``i``.

        Args:
            i: which.
            outputs: [width] the policy's numbers for it.
            rng: what is drawn from.
        """
        choice = self.choices[i]
        if choice.kind == "beta":
            a, b = 1 + np.logaddexp(0.0, outputs)
            return np.array([np.clip(rng.beta(a, b), _LEAST, 1 - _LEAST)])
        if choice.kind == "order":
            order = np.argsort(-(outputs + rng.gumbel(size=choice.width)), kind="stable")
            places = np.empty(choice.width)
            places[order] = (np.arange(choice.width) + 0.5) / choice.width
            return places
        p = np.cumsum(np.exp(outputs - outputs.max()))
        level = min(int(np.searchsorted(p, rng.random() * p[-1], side="right")), choice.width - 1)
        if choice.grid is not None:
            return choice.grid[level : level + 1].copy()
        return np.array([(level + rng.random()) / choice.width])


def _choices_of(
    name: str, parameter: Parameter, columns: slice, resolution: int, ranges: Ranges
) -> list[Choice]:
    if isinstance(parameter, Permutation):
        return [Choice(name, columns, "order", parameter.width)]
    if parameter.width > 1:  # a subset: 1/4 is out and 3/4 is in
        sides = np.array([0.25, 0.75])
        each = [slice(c, c + 1) for c in range(columns.start, columns.stop)]
        return [Choice(name, column, "values", 2, sides) for column in each]
    is_wide = parameter.cardinality > resolution and not isinstance(parameter, Categorical)
    if not is_wide:
        values = parameter.values_on_grid(int(parameter.cardinality))
        grid = np.array([parameter.encode(value)[0] for value in values])
        return [Choice(name, columns, "values", len(grid), grid)]
    if ranges == "beta":
        return [Choice(name, columns, "beta", 2)]
    return [Choice(name, columns, "bins", resolution)]
