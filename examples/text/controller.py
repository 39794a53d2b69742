"""Teach a pole to stand: a policy as code with numbers, improved by search.

    python examples/text/controller.py

The policy starts with a rule that is wrong and weights of zero. Five episodes judge each proposal;
a search that ends before the pole stands in all is followed by one with another seed. A hundred
fresh episodes judge the best, which is saved. Needs gymnasium: pip install 'sharpen[rl]'
"""

from pathlib import Path

import gymnasium

import sharpen as sh
import sharpen.text as st

WEIGHTS = ("by_place", "by_speed", "by_angle", "by_spin")


class Pole(st.Module):
    """Pushes a cart left or right so that its pole stays up."""

    def __init__(self) -> None:
        self.world = gymnasium.make("CartPole-v1")
        for name in WEIGHTS:
            setattr(self, name, st.Parameter(0.0, space=sh.Float(-2.0, 2.0)))

    @st.op(trainable=True, trust="inline")
    def act(self, place, speed, angle, spin, a, b, c, d):
        """1 pushes right, 0 left."""
        return 1 if a * place + b * speed - c * angle - d * spin > 1 else 0

    @st.op(allow_external=True)
    def forward(self, seed: int) -> float:
        """How many steps the pole stands."""
        weights = [getattr(self, name).value for name in WEIGHTS]
        seen, _ = self.world.reset(seed=seed)
        steps, over = 0, False
        with st.no_trace():
            while not over:
                action = self.act(*map(float, seen), *weights).value
                seen, _, ended, cut, _ = self.world.step(action)
                steps, over = steps + 1, ended or cut
        return float(steps)


pole = Pole()
problem = st.TextProblem(pole, [(seed, None) for seed in range(5)])
judge = st.TextProblem(pole, [(1000 + seed, None) for seed in range(100)])
start = judge.evaluate(problem.space.default()).objectives["score"]
for seed in range(10):  # four of ten searches find one that stands; others end on a lesser one
    study = sh.Study(
        problem,
        name=f"controller-{seed}",
        seed=seed,
        optimizer=st.SearchProposer,
        store="sqlite:///controller.db",
        budget=sh.Budget(trials=400, target=500.0),
    ).run()
    if study.best.value == 500.0:
        break
pole.load_state_dict(study.best.config)
pole.save("pole.json")

best = judge.evaluate(Pole().load("pole.json").state_dict()).objectives["score"]
print(pole.state_dict()["act.code"])
print({name: round(getattr(pole, name).value, 3) for name in WEIGHTS})
print(f"stands {start:.0f} steps at first, {best:.0f} of 500 with {Path('pole.json')}")
