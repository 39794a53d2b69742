"""Alarms: as often as stated when nothing changed, always when something did."""

import random
import threading

import pytest

from sharpen.core.errors import ConfigError, DataError
from sharpen.core.stage import Artifact, StageContext
from sharpen.serve import LLM, Monitor, MonitorConfig, Reference, check_prompts, compare
from sharpen.serve.reference import make_reference
from sharpen.serve.stages import CheckConfig, ServeConfig, run_serve
from small_models import save_small_dataset, save_small_model

TOPICS = (range(10, 60), range(50, 120), range(100, 250))


def prompt(dice, *, mean=20, topics=TOPICS):
    """Tokens of one topic, most of them common ones."""
    topic = dice.choice(topics)
    length = max(2, int(dice.gauss(mean, 6)))
    return [topic[min(int(dice.expovariate(0.1)), len(topic) - 1)] for _ in range(length)]


def nats(dice, mean=3.0):
    return dice.gauss(mean, 0.5)


@pytest.fixture(scope="module")
def reference():
    dice = random.Random(0)
    prompts = [prompt(dice) for _ in range(600)]
    return Reference.of(prompts, [nats(dice) for _ in prompts], tokenizer="t")


def window(reference, dice, count=100, *, level=3.0, **changes):
    return [
        reference.observe(prompt(dice, **changes), nats(dice, level) if i % 2 else None)
        for i in range(count)
    ]


def test_without_a_change_alarms_are_as_rare_as_stated(reference):
    """With no least shift, only chance is judged: at 5 % of 80 windows, 4 are expected at most."""
    config = MonitorConfig(alpha=0.05, psi=0.0, js=0.0)
    dice = random.Random(1)
    reports = [compare(reference, window(reference, dice), config) for _ in range(80)]
    assert all(len(report.signals) == 3 for report in reports)
    assert sum(report.drifted for report in reports) <= 9  # more has a chance of 1 in 200


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"mean": 30}, "length"),
        ({"topics": TOPICS[:1]}, "tokens"),
        ({"topics": (range(250, 290),)}, "tokens"),
        ({"level": 3.6}, "perplexity"),
    ],
)
def test_a_change_raises_the_alarm_that_names_it(reference, changes, name):
    dice = random.Random(2)
    for _ in range(5):
        report = compare(reference, window(reference, dice, **changes))
        drifted = {signal.name for signal in report.signals if signal.drifted}
        assert drifted == {name}
    (signal,) = (signal for signal in report.signals if signal.name == name)
    assert signal.shift > signal.limit
    assert report.document()["drifted"] is True


def test_a_certain_but_small_change_is_no_alarm(reference):
    dice = random.Random(3)
    report = compare(reference, window(reference, dice, 2000, mean=21))
    length = report.signals[0]
    assert length.p_value is not None
    assert length.p_value < 0.01
    assert length.shift < length.limit
    assert not report.drifted


def test_too_few_values_are_not_compared(reference):
    dice = random.Random(4)
    assert compare(reference, window(reference, dice, 19)).signals == ()
    names = [s.name for s in compare(reference, window(reference, dice, 30)).signals]
    assert names == ["length", "tokens"]  # only 15 are scored


def test_a_monitor_reports_once_a_window(reference, caplog):
    dice = random.Random(5)
    scored = []

    def score(ids):
        scored.append(ids)
        return nats(dice, 9.0)

    monitor = Monitor(reference, MonitorConfig(window=60, score_every=3), score=score)
    assert monitor.document()["last"] is None
    assert monitor.document()["drifted"] is None
    reports = [monitor.observe(prompt(dice)) for _ in range(150)]
    assert [i for i, report in enumerate(reports) if report is not None] == [59, 119]
    assert len(scored) == 50
    document = monitor.document()
    assert document["requests"] == 150
    assert document["windows"] == document["alarms"] == 2
    assert document["in_window"] == 30
    assert document["drifted"] is True
    assert [s["name"] for s in document["last"]["signals"] if s["drifted"]] == ["perplexity"]
    assert "the perplexity of the last 60 requests drifted" in caplog.text
    lines = monitor.lines("x:")
    assert "x:monitor_windows_total 2" in lines
    assert 'x:drift_drifted{signal="perplexity"} 1' in lines
    assert 'x:drift_drifted{signal="length"} 0' in lines


def test_without_a_score_there_is_no_perplexity(reference):
    dice = random.Random(6)
    monitor = Monitor(reference, MonitorConfig(window=40))
    assert monitor.lines("")[-1] == "monitor_alarms_total 0"
    report = [monitor.observe(prompt(dice)) for _ in range(40)][-1]
    assert report is not None
    assert [signal.name for signal in report.signals] == ["length", "tokens"]


def test_prompts_may_come_from_several_threads(reference):
    monitor = Monitor(reference, MonitorConfig(window=50))
    dice = random.Random(7)
    prompts = [prompt(dice) for _ in range(200)]
    threads = [
        threading.Thread(target=lambda part: [monitor.observe(p) for p in part], args=(part,))
        for part in (prompts[:100], prompts[100:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = monitor.document()
    assert (document["requests"], document["windows"], document["in_window"]) == (200, 4, 0)


def test_a_log_is_compared_at_once(tmp_path):
    llm = LLM(save_small_model(tmp_path / "m"), dtype="float32")
    texts = [f"What is {i} and {i * i}? Tell me, please{'!' * (i % 7)}" for i in range(80)]
    reference = make_reference(llm, texts)
    same = check_prompts(llm, reference, texts[20:60])
    assert len(same.signals) == 3
    assert not same.drifted
    code = [f"def f{i}(x):\n    return [x ** {i}]\n" for i in range(40)]
    other = check_prompts(llm, reference, code)
    assert {s.name: s.drifted for s in other.signals}["tokens"]
    with pytest.raises(DataError, match="3 prompts are too few"):
        check_prompts(llm, reference, texts[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, "min_count=0"),
        ({"score_every": 0}, "score_every=0"),
        ({"window": 10}, "window=10 must be at least min_count=20"),
        ({"alpha": 0.001}, "alpha=0.001 must be at least 0.006"),
        ({"psi": -1.0}, "psi=-1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        MonitorConfig(**options)


def test_the_serve_stage_makes_a_reference_of_held_out_prompts(tmp_path):
    model = save_small_model(tmp_path / "m")
    save_small_dataset(tmp_path / "data", rows=45)
    (tmp_path / "out").mkdir()
    inputs = {"dataset": Artifact(kind="dataset", path=tmp_path / "data", stage="data", key="d")}
    context = StageContext(
        stage="serve",
        seed=0,
        model=str(model),
        inputs=inputs,
        output=tmp_path / "out",
        work=tmp_path,
    )
    check = CheckConfig(max_tokens=2)
    run_serve(ServeConfig(dtype="float32", monitor=40, check=check), context)
    found = Reference.load(tmp_path / "out" / "monitor.json")
    llm = LLM(model, dtype="float32")
    first = llm.encode_chat([{"role": "user", "content": "0 + 0 ="}])
    assert len(found.prompts) == 40
    assert found.prompts[0].length == len(first)
    (tmp_path / "data" / "valid.jsonl").unlink()
    with pytest.raises(ConfigError, match="needs held-out examples"):
        run_serve(ServeConfig(dtype="float32", monitor=40, check=check), context)
    with pytest.raises(ConfigError, match="monitor=5 must be at least 40"):
        ServeConfig(monitor=5)
