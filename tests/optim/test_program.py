import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharpen.core.errors import ConfigError
from sharpen.core.space import random_stream
from sharpen.optim import Lion
from sharpen.optim.program import (
    ADAM,
    LION,
    MOMENTUM,
    Program,
    ProgramOptimizer,
    decode,
    encode,
    fingerprint,
    program_space,
    run,
    simplify,
)
from sharpen.testing.optim import batch_loss, small_model, train

EXAMPLE = Path(__file__).parents[2] / "examples" / "discover_optimizer.py"


@pytest.mark.parametrize("impl", ["eager", "auto"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_program_of_lion_has_the_bits_of_lion(weight_decay: float, impl: Any) -> None:
    a, b = small_model(), small_model()
    ours = ProgramOptimizer(a.parameters(), LION, lr=0.01, weight_decay=weight_decay)
    lion = Lion(b.parameters(), lr=0.01, weight_decay=weight_decay, impl=impl)
    for step in range(30):
        for model, optimizer in ((a, ours), (b, lion)):
            batch_loss(model, step).backward()
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(ours.state[p]["momentum"], lion.state[q]["exp_avg"])


def test_adam_is_that_without_bias_correction() -> None:
    w = torch.randn(6, dtype=torch.float64)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    mine, mm, vv = w.clone(), m.clone(), v.clone()
    for step in range(5):
        g = torch.randn(6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        update, m, v = run(ADAM, w, g, m, v, 0.1)
        w = w - update
        mm, vv = 0.9 * mm + 0.1 * g, 0.999 * vv + 0.001 * g**2
        mine = mine - 0.1 * mm / (vv.sqrt() + 1e-8)
        torch.testing.assert_close(w, mine)


def test_every_operation_does_what_it_says() -> None:
    x = torch.tensor([-2.0, 0.5, 3.0])
    y = torch.tensor([4.0, -1.0, 0.5])
    expected = {
        "add(weight, gradient)": x + y,
        "sub(weight, gradient)": x - y,
        "mul(weight, 2.0)": 2 * x,
        "mul(2.0, weight)": 2 * x,
        "div(weight, gradient)": x / y,
        "interp(weight, gradient, 0.25)": 0.75 * x + 0.25 * y,
        "interp(weight, gradient, lr)": 0.9 * x + 0.1 * y,
        "interp(1.0, gradient, weight)": (1 - x) + x * y,
        "sign(weight)": x.sign(),
        "clip(weight)": x.clamp(-1, 1),
        "abs(weight)": x.abs(),
        "square(weight)": x * x,
        "sqrt(weight)": x.abs().sqrt(),
        "exp(weight)": x.exp(),
        "log(weight)": x.abs().log(),
        "sin(weight)": x.sin(),
        "tanh(weight)": x.tanh(),
        "norm(weight)": torch.full((3,), math.sqrt(13.25)),
        "add(a, lr)": torch.full((3,), 0.1),
    }
    for text, value in expected.items():
        program = Program.parse(f"update = {text}")
        assert str(program) == f"update = {text}"
        found, _, _ = run(program, x, y, torch.zeros(3), torch.zeros(3), 0.1)
        torch.testing.assert_close(found, value)
    assert torch.equal(x, torch.tensor([-2.0, 0.5, 3.0]))


def test_simplifying_keeps_what_later_steps_need() -> None:
    text = """
    b = square(gradient)
    velocity = interp(b, velocity, 0.9)
    update = mul(momentum, lr)
    momentum = add(momentum, velocity)
    c = exp(update)
    a = sin(c)
    """
    kept = str(simplify(Program.parse(text))).splitlines()
    assert kept == [
        "b = square(gradient)",
        "velocity = interp(b, velocity, 0.9)",
        "update = mul(momentum, lr)",
        "momentum = add(momentum, velocity)",
    ]
    assert simplify(LION) == LION
    assert simplify(Program.parse("momentum = sign(gradient)")) == Program(())


def _drawn(seed: int, length: int = 8) -> Program:
    return decode(program_space(length).draw(random_stream(seed, 0)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_simplified_programs_do_the_same(seed: int) -> None:
    program = _drawn(seed)
    short = simplify(program)
    assert len(short.statements) <= len(program.statements)
    assert simplify(short) == short
    w = torch.randn(5, generator=torch.Generator().manual_seed(seed))
    states = [(torch.zeros(5), torch.zeros(5))] * 2
    for step in range(3):
        g = torch.randn(5, generator=torch.Generator().manual_seed(step))
        updates = []
        for i, one in enumerate((program, short)):
            update, m, v = run(one, w, g, *states[i], 0.1)
            states[i] = m, v
            updates.append(update)
        torch.testing.assert_close(updates[0], updates[1], rtol=0, atol=0, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_programs_go_through_text_and_configurations(seed: int) -> None:
    program = _drawn(seed)
    assert Program.parse(str(program)) == program or not program.statements
    assert decode(encode(program, 8)) == program


def test_equal_programs_are_known_by_what_they_do() -> None:
    other = """
    c = interp(gradient, momentum, 0.9)
    a = exp(weight)
    momentum = interp(gradient, momentum, 0.99)
    b = sign(c)
    update = mul(lr, b)
    """
    assert fingerprint(Program.parse(other)) == fingerprint(LION)
    assert len({fingerprint(p) for p in (LION, ADAM, MOMENTUM)}) == 3
    useless = ("update = log(a)", "update = mul(weight, lr)", "momentum = sign(gradient)")
    assert [fingerprint(Program.parse(text)) for text in useless] == [None] * 3


def test_a_program_trains_a_model_and_resumes_with_the_same_bits() -> None:
    model = small_model()
    optimizer = ProgramOptimizer(model.parameters(), str(ADAM), lr=0.01)
    train(model, optimizer, 0, 10)
    other = small_model(seed=1)
    other.load_state_dict(model.state_dict())
    resumed = ProgramOptimizer(other.parameters(), MOMENTUM)
    with pytest.raises(ConfigError, match="param"):
        ProgramOptimizer(other.parameters(), MOMENTUM).load_state_dict(
            {
                **optimizer.state_dict(),
                "param_groups": [
                    {**g, "program": str(MOMENTUM)} for g in optimizer.state_dict()["param_groups"]
                ],
            }
        )
    resumed.load_state_dict(optimizer.state_dict())
    losses = train(model, optimizer, 10, 60)
    assert train(other, resumed, 10, 60) == losses and losses[-1] < 1.0
    w = nn.Parameter(torch.ones(30, 20))
    held = [
        ProgramOptimizer([w], p).state_bytes() for p in ("update = mul(gradient, lr)", LION, ADAM)
    ]
    assert held == [0, 4 * 600, 8 * 600]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("update gradient", "line 1, 'update gradient', is no statement"),
        ("a = sign(gradient)\nupdate = sing(a)", "line 2: there is no operation 'sing'.*sin"),
        ("update = add(gradient)", "add takes 2 arguments, not 1"),
        ("weight = sign(gradient)", "'weight' cannot be written"),
        ("update = sign(gradent)", "no variable 'gradent'.*gradient"),
    ],
)
def test_what_is_no_program_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Program.parse(text)


def test_what_the_space_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="length=3"):
        encode(LION, 3)
    with pytest.raises(ConfigError, match="length=0"):
        program_space(0)
    with pytest.raises(ConfigError, match=r"got 0\.123"):
        encode(Program.parse("update = mul(gradient, 0.123)"), 2)


def test_the_example_finds_a_rule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["discover_optimizer.py", "--trials", "40"])
    module = runpy.run_path(str(EXAMPLE))
    # The longer tests of the best, cut short.
    monkeypatch.setitem(module["main"].__globals__, "tuned", lambda rule, *_: len(str(rule)))
    module["main"]()
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "40 trials" in printed and "update = " in printed
