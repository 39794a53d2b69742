"""Tune a program of choices and numbers: how to scale a table and which kernel fits it.

    python examples/text/tuning.py

The same problem is given to two optimizers of the search core and to the one that searches
programs. Needs scikit-learn: pip install 'sharpen[search]'
"""

import warnings

from sklearn.datasets import load_diabetes
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import sharpen as sh
import sharpen.text as st

TABLE, PROGRESS = load_diabetes(return_X_y=True, scaled=False)
TARGET = PROGRESS - PROGRESS.mean()
SCALERS = {"standard": StandardScaler(), "minmax": MinMaxScaler(), "none": "passthrough"}
FOLDS = KFold(5, shuffle=True, random_state=0)


class Regression(st.Module):
    """Scales a table and fits it."""

    def __init__(self) -> None:
        choice = {"kind": "choice"}
        self.scaling = st.Parameter("none", space=sh.Categorical(*SCALERS), **choice)
        kernels = sh.Categorical("linear", "rbf", "laplacian", "polynomial")
        self.kernel = st.Parameter("linear", space=kernels, **choice)
        self.penalty = st.Parameter(1.0, space=sh.Float(1e-5, 1e3, log=True))
        self.gamma = st.Parameter(1.0, space=sh.Float(1e-5, 1e2, log=True))
        self.degree = st.Parameter(2, space=sh.Int(1, 5))

    @st.op
    def r2(self, scaling: str, kernel: str, penalty: float, gamma: float, degree: int) -> float:
        """R^2 of five-fold cross-validation, -1 at least."""
        model = KernelRidge(alpha=penalty, kernel=kernel, gamma=gamma, degree=degree)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tables that are nearly singular
            scores = cross_val_score(
                make_pipeline(SCALERS[scaling], model), TABLE, TARGET, cv=FOLDS
            )
        return max(float(scores.mean()), -1.0)

    def forward(self) -> st.Node:
        return self.r2(self.scaling, self.kernel, self.penalty, self.gamma, self.degree)


problem = st.TextProblem(Regression(), on_error=-1.0)
start = problem.evaluate(problem.space.default()).objectives["score"]
print(f"{'first values':16} R² {start:.3f}")
for optimizer in ("random", "tpe", st.SearchProposer):
    study = sh.Study(problem, optimizer=optimizer, store="sqlite://", budget=sh.Budget(trials=50))
    best = study.run().best
    print(f"{study.optimizer.name:16} R² {best.value:.3f}", dict(best.config))
