"""Search spaces: named parameters, when each is active, and which combinations are forbidden.

A configuration is a plain ``dict`` of the active parameters' values; an inactive parameter is
absent, never None. Each parameter has one or more coordinates of the unit cube (see
:mod:`sharpen.core.parameters`), so every optimizer can work on vectors.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.conditions import Condition, parse_condition
from sharpen.core.config import Marks, digest
from sharpen.core.errors import ConfigError, SpaceError, did_you_mean
from sharpen.core.neighbors import moved
from sharpen.core.parameter_file import fail_at, read_parameter
from sharpen.core.parameters import Fixed, Parameter
from sharpen.core.snap import Encoded, Snapping

__all__ = ["Encoded", "Space", "random_stream"]

Config = dict[str, Any]
_SCHEMA = "sharpen.space/1"
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$")
_MAX_TRIES = 1000


def random_stream(seed: int, number: int) -> np.random.Generator:
    """The random stream of trial ``number`` under ``seed``: a function of the two, nothing else.

    Streams of different numbers never overlap (Philox, with the number as the high counter word).
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))


class Space(Mapping[str, Parameter]):
    """Named parameters with conditions and forbidden combinations; immutable.

    Args:
        parameters: parameters by name, for names that are no Python identifiers.
        named: parameters by name.

    Raises:
        SpaceError: no parameters, a bad name, a condition on an unknown parameter, or conditions
            that depend on each other in a circle.

    Examples:
        >>> from sharpen.core.parameters import Categorical, Int
        >>> space = Space(kind=Categorical("a", "b"), depth=Int(1, 32))
        >>> space.default()
        {'kind': 'a', 'depth': 17}
    """

    def __init__(
        self, parameters: Mapping[str, Parameter] | None = None, /, **named: Parameter
    ) -> None:
        self._parameters: dict[str, Parameter] = {**(parameters or {}), **named}
        self._forbidden: tuple[Condition, ...] = ()
        if not self._parameters:
            raise SpaceError("a space needs a parameter, for example Space(x=Float(0, 1)).")
        for name, parameter in self._parameters.items():
            if not _NAME.match(str(name)):
                raise SpaceError(
                    f"{name!r} is no name for a parameter. Use letters, digits, '_', '-' and '.'."
                )
            if not isinstance(parameter, Parameter):
                raise SpaceError(
                    f"the parameter '{name}' is {parameter!r}. Use Float, Int, Categorical, "
                    "Ordinal, Bool, Permutation, Subset or Text, or Fixed for a constant."
                )
            self._check_names(parameter.condition, f"the condition of '{name}'")
        self._order = self._sorted_by_dependency()
        self._columns: dict[str, slice] = {}
        self._dimensions = 0
        for name, parameter in self._parameters.items():
            self._columns[name] = slice(self._dimensions, self._dimensions + parameter.width)
            self._dimensions += parameter.width

    # -- as a mapping ---------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Space({', '.join(self._parameters)})"

    # -- structure ------------------------------------------------------------------------------

    @property
    def forbidden(self) -> tuple[Condition, ...]:
        """Conditions that no configuration may meet."""
        return self._forbidden

    @property
    def is_conditional(self) -> bool:
        """Whether a parameter may be inactive."""
        return any(p.condition is not None for p in self._parameters.values())

    @property
    def dimensions(self) -> int:
        """Number of coordinates: one a scalar, one an item of a permutation or subset."""
        return self._dimensions

    @property
    def columns(self) -> Mapping[str, slice]:
        """Where each parameter's coordinates stand in a vector."""
        return MappingProxyType(self._columns)

    @property
    def fingerprint(self) -> str:
        """Digest of the whole space, 32 hex digits."""
        return digest(self.to_dict())

    @property
    def cardinality(self) -> float:
        """Number of configurations if all were active and allowed; infinite with a real number."""
        return math.prod(p.cardinality for p in self._parameters.values())

    def forbid(self, *clauses: Condition | str) -> Space:
        """The same space without the configurations that meet a clause.

        Args:
            clauses: conditions, or their text: ``P("a") + P("b") > 16`` or ``"a + b > 16"``.

        Raises:
            SpaceError: not a condition, or one that names an unknown parameter.
        """
        space = Space(self._parameters)
        found = list(self._forbidden)
        for clause in clauses:
            condition = parse_condition(clause) if isinstance(clause, str) else clause
            if not isinstance(condition, Condition):
                raise SpaceError(f"forbid takes a condition or its text, got {clause!r}.")
            self._check_names(condition, f"the forbidden clause '{condition}'")
            found.append(condition)
        space._forbidden = tuple(found)
        return space

    def freeze(self, **values: Any) -> Space:
        """The same space with some parameters held at a value.

        Raises:
            ConfigError: an unknown name or a value the parameter may not take.
        """
        changed = dict(self._parameters)
        for name, value in values.items():
            if name not in changed:
                raise ConfigError(f"unknown parameter '{name}'.{did_you_mean(name, changed)}")
            old = changed[name]
            try:
                checked = old.check(value)
            except ConfigError as error:
                raise ConfigError(f"{name} {error}") from None
            fixed = Fixed(checked, description=old.description, unit=old.unit)
            if old.condition is not None:
                fixed = fixed.active_if(old.condition)
            changed[name] = fixed
        space = Space(changed)
        space._forbidden = self._forbidden
        return space

    def subspace(self, names: Iterable[str]) -> Space:
        """The space of some of the parameters, in this space's order.

        Forbidden clauses come along that name only them; clauses on others alone do not matter.

        Raises:
            ConfigError: an unknown name.
            SpaceError: a condition or clause of theirs depends on a parameter that is left out.

        Examples:
            >>> from sharpen.core.parameters import Int
            >>> list(Space(a=Int(1, 3), b=Int(1, 3), c=Int(1, 3)).subspace(["c", "a"]))
            ['a', 'c']
        """
        wanted = list(names)
        for name in wanted:
            if name not in self._parameters:
                raise ConfigError(f"unknown parameter '{name}'.{did_you_mean(name, self)}")
        kept = {name: p for name, p in self._parameters.items() if name in wanted}
        clauses = [clause for clause in self._forbidden if clause.names() & kept.keys()]
        needs = [(f"'{name}' is active if {p.condition}", p.condition) for name, p in kept.items()]
        needs += [(f"the forbidden clause {clause}", clause) for clause in clauses]
        for what, condition in needs:
            left_out = sorted(condition.names() - kept.keys()) if condition is not None else []
            if left_out:
                raise SpaceError(
                    f"{what}: it needs {', '.join(left_out)}, left out of the subspace. "
                    "Take these in too; freeze() holds them at a value."
                )
        return Space(kept).forbid(*clauses)

    def union(self, other: Space, *, prefix: str = "", active_if: Condition | None = None) -> Space:
        """This space's parameters and those of another; conditions and clauses of both hold.

        Args:
            other: the other space.
            prefix: put before each of its names, with a dot between.
            active_if: when all of it is active; a condition on this space's parameters.

        Raises:
            SpaceError: both have a parameter of the same name, or the condition names none.

        Examples:
            >>> from sharpen.core.conditions import Eq
            >>> from sharpen.core.parameters import Categorical, Float
            >>> solver = Space(kind=Categorical("sgd", "adam"))
            >>> sgd = Space(momentum=Float(0, 1))
            >>> list(solver.union(sgd, prefix="sgd", active_if=Eq("kind", "sgd")))
            ['kind', 'sgd.momentum']
        """
        new = {name: f"{prefix}.{name}" if prefix else name for name in other}
        twice = sorted(set(new.values()) & self.keys())
        if twice:
            raise SpaceError(
                f"both spaces have {', '.join(twice)}. Give another prefix, such as "
                'union(other, prefix="other").'
            )
        if active_if is not None:
            self._check_names(active_if, "active_if")
        joined = dict(self._parameters)
        for old, name in new.items():
            parameter = other[old]
            if parameter.condition is not None:
                own = parameter.condition.renamed(new)
                parameter = parameter.active_if(own if active_if is None else active_if & own)
            elif active_if is not None:
                parameter = parameter.active_if(active_if)
            joined[name] = parameter
        clauses = [clause.renamed(new) for clause in other.forbidden]
        return Space(joined).forbid(*self._forbidden, *clauses)

    def _check_names(self, condition: Condition | None, where: str) -> None:
        for name in sorted(condition.names()) if condition is not None else ():
            if name not in self._parameters:
                raise SpaceError(
                    f"{where} names '{name}', which is no parameter."
                    f"{did_you_mean(name, self._parameters)} "
                    f"Parameters: {', '.join(self._parameters)}."
                )

    def _sorted_by_dependency(self) -> list[str]:
        """Names such that whatever a condition names comes before it."""
        order: dict[str, None] = {}
        path: list[str] = []

        def visit(name: str) -> None:
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                raise SpaceError(f"conditions depend on each other in a circle: {circle}.")
            if name in order:
                return
            path.append(name)
            condition = self._parameters[name].condition
            for parent in sorted(condition.names()) if condition is not None else ():
                visit(parent)
            path.pop()
            order[name] = None

        for name in self._parameters:
            visit(name)
        return list(order)

    # -- configurations -------------------------------------------------------------------------

    def active(self, values: Mapping[str, Any]) -> Config:
        """Only the active ones of ``values``, in the space's order."""
        found: Config = {}
        for name in self._order:
            condition = self._parameters[name].condition
            if name in values and (condition is None or condition.holds(found) is True):
                found[name] = values[name]
        return {name: found[name] for name in self._parameters if name in found}

    def default(self) -> Config:
        """Every active parameter at its default."""
        return self.active({name: p.default_value() for name, p in self._parameters.items()})

    def validate(self, config: Mapping[str, Any]) -> Config:
        """A configuration with every value in its parameter's type, in the space's order.

        Raises:
            ConfigError: lists every key that is wrong, unknown, missing or inactive, and every
                forbidden clause that is met.
        """
        problems: list[str] = []
        values: Config = {}
        for name, value in config.items():
            if name not in self._parameters:
                hint = did_you_mean(str(name), self._parameters)
                problems.append(f"unknown parameter '{name}'.{hint}")
                continue
            try:
                values[name] = self._parameters[name].check(value)
            except ConfigError as error:
                problems.append(f"{name} {error}")
        if not problems:
            found = self.active(values)
            problems += [
                f"{name} is given but inactive: it needs {self._parameters[name].condition}."
                for name in values
                if name not in found
            ]
            for name, parameter in self._parameters.items():
                condition = parameter.condition
                if name not in values and (condition is None or condition.holds(found) is True):
                    problems.append(f"{name} is missing.")
            problems += [f"forbidden: {clause}." for clause in self._violated(found)]
            if not problems:
                return found
        raise ConfigError("the configuration is wrong: " + " ".join(problems))

    def _violated(self, config: Mapping[str, Any]) -> list[Condition]:
        return [clause for clause in self._forbidden if clause.holds(config) is True]

    def canonical(self, config: Mapping[str, Any]) -> str:
        """The one text of a valid configuration: sorted keys, shortest floats."""
        values = {name: self._parameters[name].check(value) for name, value in config.items()}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def digest(self, config: Mapping[str, Any]) -> str:
        """blake2b-128 of the canonical text, as 32 hex digits."""
        return digest(json.loads(self.canonical(config)))

    # -- the unit cube --------------------------------------------------------------------------

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> Encoded:
        """Valid configurations as vectors, with the parameters in the space's order."""
        x = np.full((len(configs), self._dimensions), 0.5)
        mask = np.zeros((len(configs), self._dimensions), dtype=bool)
        for row, config in enumerate(configs):
            for name, value in config.items():
                columns = self._columns[name]
                x[row, columns] = self._parameters[name].encode(value)
                mask[row, columns] = True
        return Encoded(x, mask)

    def decode(self, x: npt.ArrayLike) -> list[Config]:
        """Configurations at points of the unit cube; forbidden ones are not avoided.

        Args:
            x: [n, d] coordinates in [0, 1].

        Raises:
            SpaceError: another shape, or a coordinate outside [0, 1].
        """
        points = np.asarray(x, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self._dimensions:
            raise SpaceError(
                f"decode takes an array [n, {self._dimensions}], got shape {points.shape}."
            )
        if not bool(np.all((points >= 0) & (points <= 1))):
            raise SpaceError("decode takes coordinates from 0 to 1.")
        return [self._decode_row(row) for row in points]

    def _decode_row(self, row: Sequence[float] | npt.NDArray[np.float64]) -> Config:
        columns = self._columns
        return self.active({n: p.decode(row[columns[n]]) for n, p in self._parameters.items()})

    def sample(self, n: int = 1, *, seed: int = 0) -> list[Config]:
        """``n`` random allowed configurations, uniform in the unit cube.

        Raises:
            SpaceError: forbidden clauses leave too little to find.
        """
        return [self.draw(random_stream(seed, number)) for number in range(n)]

    def draw(self, rng: np.random.Generator) -> Config:
        """One random allowed configuration; see :meth:`sample`."""
        point = rng.random(self._dimensions)
        for _ in range(_MAX_TRIES):
            config = self._decode_row(point)
            if not self._violated(config):
                return config
            point = rng.random(self._dimensions)
        return self.settle(point, rng)

    def settle_all(
        self, points: npt.NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float64], Encoded]:
        """Many points at once: what :meth:`settle` and :meth:`encode` make of each, to the bit.

        Args:
            points: [n, d] coordinates in [0, 1].
            rng: draws anew what forbidden clauses name.

        Returns:
            [n, d] points of allowed configurations, for :meth:`decode`, and their vectors.

        Raises:
            SpaceError: as for :meth:`settle`.
        """
        points = np.array(points, dtype=np.float64)
        snapping = Snapping(self._parameters, self._columns, self._order)
        encoded = snapping.snap(points)
        bad = np.zeros(len(points), dtype=bool)
        for clause in self._forbidden if len(points) else ():
            bad |= snapping.holds(clause, points, encoded)
        moved = np.flatnonzero(bad)
        if len(moved):
            points[moved] = [self._settled(points[row], rng)[1] for row in moved]
            again = snapping.snap(points[moved])
            encoded.x[moved], encoded.mask[moved] = again.x, again.mask
        return points, encoded

    def settle(
        self, point: Sequence[float] | npt.NDArray[np.float64], rng: np.random.Generator
    ) -> Config:
        """The configuration at ``point`` or, if it is forbidden, one near it that is not.

        Only the parameters that the violated clauses name are drawn anew.

        Raises:
            SpaceError: none is found; the forbidden clauses leave too little.
        """
        return self._settled(point, rng)[0]

    def _settled(
        self, point: Sequence[float] | npt.NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[Config, npt.NDArray[np.float64]]:
        point = np.array(point, dtype=np.float64)
        for _ in range(_MAX_TRIES):
            config = self._decode_row(point)
            violated = self._violated(config)
            if not violated:
                return config, point
            for name in sorted(frozenset().union(*(clause.names() for clause in violated))):
                point[self._columns[name]] = rng.random(self._parameters[name].width)
        clauses = "; ".join(map(str, self._forbidden))
        raise SpaceError(
            f"feasible volume too small: {2 * _MAX_TRIES} random configurations met a forbidden "
            f"clause ({clauses}). Loosen a clause or narrow the ranges."
        )

    def neighbors(
        self, config: Mapping[str, Any], k: int = 1, *, seed: int = 0, scale: float = 0.1
    ) -> list[Config]:
        """Allowed configurations near one, each with one active parameter moved.

        What becomes active with it has its default; what becomes inactive is absent. By kind of
        parameter: :mod:`sharpen.core.neighbors`.

        Args:
            config: a valid configuration.
            k: how many, all different; fewer where there are not so many, or none is found.
            seed: of the random numbers.
            scale: standard deviation of the step along a range, as a part of it.

        Raises:
            ConfigError: the configuration is wrong.

        Examples:
            >>> from sharpen.core.parameters import Categorical
            >>> Space(kind=Categorical("a", "b"), n=Fixed(3)).neighbors({"kind": "a", "n": 3}, 5)
            [{'kind': 'b', 'n': 3}]
        """
        config = self.validate(config)
        rng = random_stream(seed, 0)
        # A text has no coordinates to move.
        choices = {name: p for name, p in self._parameters.items() if p.width and p.cardinality > 1}
        names = [name for name in config if name in choices]
        defaults = {name: p.default_value() for name, p in self._parameters.items()}
        found: dict[str, Config] = {self.canonical(config): config}
        for _ in range(_MAX_TRIES * k if names else 0):
            if len(found) > k:
                break
            name = names[rng.integers(len(names))]
            parameter = self._parameters[name]
            u = moved(parameter, rng, np.array(parameter.encode(config[name])), scale)
            near = self.active({**defaults, **config, name: parameter.decode(u)})
            if not self._violated(near):
                found.setdefault(self.canonical(near), near)
        return list(found.values())[1:]

    def grid(self, resolution: int = 10) -> list[Config]:
        """All allowed configurations on a grid, without repetition.

        Args:
            resolution: points on a range that has more values than that.
        """
        axes = [parameter.values_on_grid(resolution) for parameter in self._parameters.values()]
        found: dict[str, Config] = {}
        for row in itertools.product(*axes):
            config = self.active(dict(zip(self._parameters, row, strict=True)))
            if not self._violated(config):
                found.setdefault(self.canonical(config), config)
        return list(found.values())

    # -- plain data -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As plain data that :meth:`from_dict` reads."""
        data: dict[str, Any] = {
            "schema": _SCHEMA,
            "parameters": {name: p.to_dict() for name, p in self._parameters.items()},
        }
        if self._forbidden:
            data["forbidden"] = [str(clause) for clause in self._forbidden]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """The space that :meth:`to_dict` wrote.

        Raises:
            SpaceError: not such data, or of a newer schema.
        """
        if data.get("schema") != _SCHEMA:
            raise SpaceError(
                f"unknown space schema {data.get('schema')!r}; this version reads {_SCHEMA}."
            )
        space = cls.parse(data.get("parameters"))
        return space.forbid(*data["forbidden"]) if data.get("forbidden") else space

    @classmethod
    def parse(cls, data: Any, *, path: tuple[str, ...] = (), marks: Marks | None = None) -> Space:
        """A space as a study file writes it: ``{x: {type: float, low: 0, high: 1}}``.

        Args:
            data: parameters by name.
            path: where they stand in their document, for messages.
            marks: the document's marks, for ``file:line`` in messages.

        Raises:
            SpaceError: a parameter is wrong, with file and line.
        """
        marks = marks or Marks()
        if not isinstance(data, Mapping) or not data:
            raise fail_at(path, marks, "a space is a mapping of parameters by name.")
        parameters = {
            str(name): read_parameter(value, (*path, str(name)), marks)
            for name, value in data.items()
        }
        try:
            return cls(parameters)
        except SpaceError as error:
            raise fail_at(path, marks, str(error)) from None
