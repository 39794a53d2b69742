"""Operations: plain functions that record what they are given and what they give.

Inside an operation's body all values are plain. What the body reads of other nodes is noticed: a
parameter that is used without being an input would get no feedback, so that is an error, or (with
``allow_external=True``) makes it an input.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial, update_wrapper
from typing import Any, Literal, get_args, overload

from sharpen.core.errors import ConfigError
from sharpen.core.lm.errors import BudgetExhausted, ServiceError
from sharpen.text.error_report import error_report
from sharpen.text.errors import ExecutionError, UndeclaredInputError
from sharpen.text.nodes import READS, RECORDING, Call, Node, Operation, reading
from sharpen.text.tape import current_tape

__all__ = ["ErrorNode", "Op", "bundle", "op", "record"]

Trust = Literal["auto", "inline", "sandbox"]
_CONTAINERS = (list, tuple, dict, set)
_NOT_OF_THE_PROGRAM = (UndeclaredInputError, BudgetExhausted, ServiceError)
"""Errors that no change of a parameter would mend."""


class ErrorNode(Node):
    """Stands for the output of an operation that raised; its value is the report of the error."""

    __slots__ = ()


def _as_node(value: Any) -> Node:
    if isinstance(value, Node):
        return value
    if type(value) in _CONTAINERS and _holds_nodes(value):
        return _collected(value)
    return Node(value)


def _holds_nodes(value: Any) -> bool:
    if isinstance(value, Node):
        return True
    if type(value) is dict:
        return any(_holds_nodes(item) for item in value.values())
    return type(value) in _CONTAINERS and any(_holds_nodes(item) for item in value)


@cache
def _collector(kind: Callable[..., Any], keys: tuple[Any, ...]) -> Operation:
    def collect(*items: Any) -> Any:
        return dict(zip(keys, items, strict=True)) if kind is dict else kind(items)

    return Operation(kind.__name__, f"a {kind.__name__} of its inputs", function=collect)


def _collected(value: Any) -> Node:
    """A list, tuple, set or dict that holds nodes, as one node made of them."""
    kind: Any = type(value)
    keys = tuple(value) if kind is dict else ()
    items = tuple(value.values()) if keys else tuple(value)
    names = tuple(str(k) for k in keys) or tuple(f"item_{i}" for i in range(len(items)))
    return record(_collector(kind, keys), items, names)


def _new(
    operation: Operation,
    inputs: tuple[Node, ...],
    names: tuple[str, ...],
    value: Any,
    kind: type[Node] = Node,
) -> Node:
    if not RECORDING.get():
        return kind(value)
    needs_grad = False
    for node in inputs:
        if node.needs_grad:
            needs_grad = True
            break
    made = kind(value, call=Call(operation, inputs, names), needs_grad=needs_grad)
    tape = current_tape()
    if tape is not None:
        tape.add(made)
    return made


def _plain(inputs: Sequence[Node]) -> list[Any]:
    reads = READS.get()
    if reads is not None:
        reads.extend(inputs)
    return [node._value for node in inputs]


def record(operation: Operation, inputs: Sequence[Any], names: tuple[str, ...]) -> Node:
    """Run ``operation`` on inputs and record it.

    Args:
        operation: its function takes the plain values of the inputs by position.
        inputs: nodes or plain values.
        names: one for each input.

    Raises:
        ExecutionError: the function raised.
    """
    nodes = tuple([_as_node(value) for value in inputs])
    function = operation.function
    assert function is not None, f"{operation.name} cannot be run"
    try:
        value = function(*_plain(nodes))
    except _NOT_OF_THE_PROGRAM:
        raise
    except Exception as error:
        report = error_report(error, operation.name, None)
        raise ExecutionError(_new(operation, nodes, names, report, ErrorNode)) from error
    return _new(operation, nodes, names, value)


class Op:
    """A function whose calls are recorded; made by :func:`op`."""

    def __init__(
        self,
        function: Callable[..., Any],
        operation: Operation,
        *,
        catch: bool = True,
        allow_external: bool = False,
        timeout: float | None = None,
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.operation = operation
        self.catch = catch
        self.allow_external = allow_external
        self.timeout = timeout
        self.is_async = inspect.iscoroutinefunction(function)
        parameters = list(inspect.signature(function).parameters.values())
        self._positional = tuple(
            p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        )
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it on nodes or plain values.

        Returns:
            A node; of a coroutine function, a coroutine that gives one.

        Raises:
            ExecutionError: the function raised; ``.node`` takes feedback.
            UndeclaredInputError: it read a parameter that is not among its inputs.
        """
        function, hidden = self._what_runs()
        return self._run(function, self._positional, args, kwargs, hidden)

    def _what_runs(self) -> tuple[Callable[..., Any], Mapping[str, Node]]:
        """The function, and inputs of the record that it is not given."""
        return self.function, {}

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """Bound to an object, which is no input: its parameters must be given as inputs."""
        if owner is None:
            return self
        return _Bound(self, owner)

    def _run(
        self,
        function: Callable[..., Any],
        positional: tuple[str, ...],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        hidden: Mapping[str, Node],
    ) -> Any:
        """Run ``function``; ``hidden`` are inputs of the record that it is not given."""
        names, count = positional[: len(args)], len(args)
        if len(names) < count:
            names += tuple([f"{self._rest}_{i}" for i in range(count - len(names))])
        nodes = [_as_node(value) for value in args]
        if kwargs:
            names += tuple(kwargs)
            nodes.extend([_as_node(value) for value in kwargs.values()])
        plain = _plain(nodes)
        if hidden:
            names += tuple(hidden)
            nodes.extend(hidden.values())
            _plain(tuple(hidden.values()))
        given = plain[:count]
        named = dict(zip(kwargs, plain[count:], strict=True)) if kwargs else {}
        inputs = tuple(nodes)
        if self.is_async:
            return self._run_async(function, given, named, inputs, names)
        reads: list[Node] = []
        token = READS.set(reads)  # as in reading(), without its cost
        try:
            value = _unwrapped(function(*given, **named))
        except Exception as error:
            raise self._failure(error, function, inputs, names, reads) from error
        finally:
            READS.reset(token)
        if reads:
            inputs, names = self._with_external(inputs, names, reads)
        return _new(self.operation, inputs, names, value)

    async def _run_async(
        self,
        function: Callable[..., Any],
        given: list[Any],
        named: dict[str, Any],
        inputs: tuple[Node, ...],
        names: tuple[str, ...],
    ) -> Node:
        with reading() as reads:
            try:
                value = await asyncio.wait_for(function(*given, **named), self.timeout)
            except TimeoutError:
                late = TimeoutError(f"{self.operation.name} took more than {self.timeout:g} s.")
                raise self._failure(late, function, inputs, names, reads) from late
            except Exception as error:
                raise self._failure(error, function, inputs, names, reads) from error
            value = _unwrapped(value)
        if reads:
            inputs, names = self._with_external(inputs, names, reads)
        return _new(self.operation, inputs, names, value)

    def _failure(
        self,
        error: Exception,
        function: Callable[..., Any],
        inputs: tuple[Node, ...],
        names: tuple[str, ...],
        reads: list[Node],
    ) -> Exception:
        """What to raise: the error itself where it is the caller's, else what takes feedback."""
        while isinstance(function, partial):
            function = function.func
        called_wrongly = isinstance(error, TypeError) and not _body_ran(error, function)
        if not self.catch or called_wrongly or isinstance(error, _NOT_OF_THE_PROGRAM):
            return error
        inputs, names = self._with_external(inputs, names, reads)
        report = error_report(error, self.operation.name, function)
        return ExecutionError(_new(self.operation, inputs, names, report, ErrorNode))

    def _with_external(
        self, inputs: tuple[Node, ...], names: tuple[str, ...], reads: list[Node]
    ) -> tuple[tuple[Node, ...], tuple[str, ...]]:
        known = {id(node) for node in inputs}
        external = {
            id(node): node
            for node in reads
            if node.needs_grad and id(node) not in known and not _stems_from(node, known)
        }
        if not external:
            return inputs, names
        if not self.allow_external:
            read = ", ".join(repr(node) for node in external.values())
            raise UndeclaredInputError(
                f"the operation '{self.operation.name}' read {read}, which is not among its inputs,"
                " so that feedback would not reach it. Give it as an argument, or declare"
                " op(allow_external=True)."
            )
        more = tuple(external.values())
        return inputs + more, names + tuple(f"external_{i}" for i in range(len(more)))

    def __repr__(self) -> str:
        return f"<op {self.operation.name}>"


class _Bound:
    """An operation that is a method, with its object."""

    __slots__ = ("op", "owner")

    def __init__(self, op: Op, owner: Any) -> None:
        self.op = op
        self.owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function, hidden = self.op._what_runs()
        bound = partial(function, self.owner)
        return self.op._run(bound, self.op._positional[1:], args, kwargs, hidden)


def _stems_from(node: Node, known: set[int]) -> bool:
    """Whether all parameters behind a node are known, as in a function that calls itself."""
    waiting, seen = [node], {node.id}
    while waiting:
        one = waiting.pop()
        if one.is_root and id(one) not in known:
            return False
        for parent in one.inputs:
            if parent.needs_grad and parent.id not in seen:
                seen.add(parent.id)
                waiting.append(parent)
    return True


def _body_ran(error: BaseException, function: Callable[..., Any]) -> bool:
    code = getattr(function, "__code__", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            return True
        trace = trace.tb_next
    return code is None


def _unwrapped(value: Any) -> Any:
    """The plain value of what an operation gives, also of nodes within containers."""
    if isinstance(value, Node):
        return value.value
    if type(value) is dict and _holds_nodes(value):
        return {key: _unwrapped(item) for key, item in value.items()}
    if type(value) in _CONTAINERS and _holds_nodes(value):
        return type(value)(_unwrapped(item) for item in value)
    return value


@overload
def op(function: Callable[..., Any], /) -> Op: ...
@overload
def op(
    *,
    name: str | None = None,
    doc: str | None = None,
    catch: bool = True,
    allow_external: bool = False,
    timeout: float | None = None,
    trainable: bool = False,
    trust: Trust = "auto",
    kind: str = "function",
    vjp: Callable[..., Any] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Op]: ...
def op(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    doc: str | None = None,
    catch: bool = True,
    allow_external: bool = False,
    timeout: float | None = None,
    trainable: bool = False,
    trust: Trust = "auto",
    kind: str = "function",
    vjp: Callable[..., Any] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Any:
    """Make calls of a function operations of the program that is recorded.

    Args:
        function: the function, or coroutine function.
        name: how listings call it; the function's name without one.
        doc: one line on what it does, for optimizers that read; the first line of its docstring
            without one.
        catch: turn an exception of the function into an
            :class:`~sharpen.text.errors.ExecutionError` whose node takes feedback.
        allow_external: make parameters that it reads from elsewhere its inputs, instead of an
            error.
        timeout: seconds after which a coroutine is stopped.
        trainable: make its source a parameter (``.parameter``) that optimizers rewrite; see
            :mod:`sharpen.text.code`.
        trust: where trainable source runs: ``auto`` runs what you wrote in this process, and what
            was proposed in a sandbox; ``inline`` all in this process, which protects from nothing;
            ``sandbox`` all in a sandbox.
        kind: ``llm`` for a call of a language model, whose feedback is written by a model too.
        vjp: its derivative, see :class:`~sharpen.text.nodes.Operation`.
        backward: how words of feedback pass through it.

    Raises:
        ConfigError: it is no function, or a timeout of a function that cannot be stopped.
    """
    if function is None:
        return partial(
            op,
            name=name,
            doc=doc,
            catch=catch,
            allow_external=allow_external,
            timeout=timeout,
            trainable=trainable,
            trust=trust,
            kind=kind,
            vjp=vjp,
            backward=backward,
        )
    if not inspect.isroutine(function):
        raise ConfigError(f"@op needs a function, got {function!r}.")
    if timeout is not None and not inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"timeout={timeout:g} of '{function.__name__}': only a coroutine function can be"
            " stopped. Write it with `async def`."
        )
    called = name or function.__name__
    said = inspect.getdoc(function) or ""
    line = doc if doc is not None else (said.splitlines()[0] if said else f"the function {called}")
    if trust not in get_args(Trust):
        raise ConfigError(f"trust={trust!r} of '{called}': give auto, inline or sandbox.")
    meta = {} if trust == "auto" else {"trust": trust}
    operation = Operation(
        called, line, kind=kind, function=function, vjp=vjp, backward=backward, meta=meta
    )
    if trainable:
        from sharpen.text.code import CodeOp

        made: type[Op] = CodeOp
    else:
        made = Op
    return made(function, operation, catch=catch, allow_external=allow_external, timeout=timeout)


bundle = op
"""The same under the name that Trace gives it."""
