"""A search for a prompt on a server that fails at times, killed again and again, ends as if not."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.command import document, sharpen, start
from lm_server import cut, running_server

CONCURRENCY = 4


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


class Model:
    """Labels by luck of the prompt's words; one in nine requests fails when it is first made."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    def __call__(self, body: dict[str, Any]) -> Any:
        key = json.dumps(body, sort_keys=True)
        with self.lock:
            self.asked[key] += 1
            first = self.asked[key] == 1
        time.sleep(self.seconds)
        number = _digest(key)
        if first and number % 9 == 0:
            return [(500, "broken"), (429, "busy", {"Retry-After": "0"}), cut][number // 9 % 3]
        with self.lock:
            self.answered[key] += 1
        prompt = body["messages"][-1]["content"]
        if "Input:" in prompt and "Output:" in prompt:
            return "yes" if _digest(prompt) % 3 else "no"
        return f"```\nDecide by rule {_digest(prompt) % 1000}.\n```"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rows = [{"input": f"case {i}", "output": ("yes", "no")[i % 2]} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = {
        "data": {"file": "rows.jsonl", "split": {"train": 0.2, "val": 0.4, "test": 0.4}},
        "instruction": "Decide.",
        "template": "{{instruction}}\n\n{{exemplars}}\n\nInput: {{input}}\nOutput:",
        "exemplar": "Input: {{input}}\nOutput: {{output}}",
        "parser": "label",
        "labels": ["yes", "no"],
        "search": {
            "io": "protegi",
            "eo": "mutation",
            "budget": 8,
            "k": 2,
            "concurrency": CONCURRENCY,
        },
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(written))
    return tmp_path


@pytest.mark.slow
def test_a_killed_search_ends_the_same_and_pays_for_no_reply_twice(task: Path) -> None:
    whole = Model(0.0)
    with running_server(whole) as server:
        done = sharpen(
            *("text", "optimize", "task.yaml", "--lm", server.url, "-o", "whole", "--json"),
            cwd=task,
        )
    assert done.returncode == 0, done.stderr
    wanted = document(done)
    assert max(whole.answered.values()) == 1
    assert whole.asked.total() > whole.answered.total()  # some failed and were asked again

    model, kills, rng = Model(0.01), 0, random.Random(0)
    with running_server(model) as server:
        call = ("text", "optimize", "task.yaml", "--lm", server.url, "-o", "killed", "--json")
        while kills < 5:
            target = model.answered.total() + rng.randint(10, 40)
            with start(*call, cwd=task) as process:
                while process.poll() is None and model.answered.total() < target:
                    time.sleep(0.002)
                if process.poll() is not None:
                    break
                process.send_signal(signal.SIGKILL)
                process.wait()
            kills += 1
        assert not (task / "killed" / "result.json").exists() or kills < 5
        found = document(sharpen(*call, cwd=task))
    assert kills >= 3
    same = ("prompt", "validation", "test", "judgements", "full_evaluations")
    assert {name: found[name] for name in same} == {name: wanted[name] for name in same}
    for name in ("prompt.json", "history.jsonl"):
        assert (task / "killed" / name).read_bytes() == (task / "whole" / name).read_bytes()
    # A reply that was under way when the command died may be paid for again.
    again = model.answered.total() - len(model.answered)
    assert again <= kills * CONCURRENCY
    assert set(model.answered) == set(whole.answered)


@pytest.mark.slow
def test_two_searches_in_one_folder_end_the_same(task: Path) -> None:
    model = Model(0.005)
    with running_server(model) as server:
        call = ("text", "optimize", "task.yaml", "--lm", server.url, "-o", "both", "--json")
        with start(*call, cwd=task) as one, start(*call, cwd=task) as two:
            told = [process.communicate(timeout=120) for process in (one, two)]
            codes = [one.returncode, two.returncode]
    assert codes == [0, 0], [error for _, error in told]
    results = [json.loads(out) for out, _ in told]
    assert results[0]["prompt"] == results[1]["prompt"]
    assert results[0]["test"] == results[1]["test"]


def test_a_server_that_is_gone_is_told(task: Path) -> None:
    with running_server(Model(0.0)) as server:
        url = server.url
    done: subprocess.CompletedProcess[str] = sharpen(
        *("text", "optimize", "task.yaml", "--lm", url, "-o", "gone"), cwd=task
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "127.0.0.1" in done.stderr
    assert not (task / "gone" / "result.json").exists()
