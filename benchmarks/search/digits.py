"""Learning to read the handwritten digits that ship with scikit-learn, as two search spaces.

``Pipelines`` is a tree of conditions: what stands before the classifier, which of five classifiers,
and the knobs each of them has, some of which depend on others (a degree only for a polynomial
kernel). ``Network`` is flat and mixed: real numbers, whole numbers and choices of one network.

Half of the 1,797 digits are there to learn from, the other half to count wrong answers on. A
configuration has the same loss each time: seeds of what learns are fixed. An evaluation takes some
hundredths of a second of one core.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

from sharpen.core.conditions import Eq, In
from sharpen.core.parameters import Bool, Categorical, Float, Int
from sharpen.core.space import Space

__all__ = ["Network", "Pipelines"]


@cache
def _halves() -> tuple[Any, ...]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    found = train_test_split(x / 16, y, test_size=0.5, random_state=0, stratify=y)
    return tuple(found)


def _wrong(model: Any) -> float:
    """The share of wrong answers of a model that has yet to learn."""
    train, test, y_train, y_test = _halves()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could learn longer, or that it diverges
        return float(1 - model.fit(train, y_train).score(test, y_test))


class Pipelines:
    """Find the pipeline with the fewest wrong answers."""

    def __init__(self) -> None:
        linear, near, kernel, forest, network = (
            Eq("kind", kind) for kind in ("linear", "neighbours", "kernel", "forest", "network")
        )
        self.space = Space(
            {
                "before": Categorical("nothing", "scale", "components"),
                "components": Int(2, 60, log=True).active_if(Eq("before", "components")),
                "kind": Categorical("linear", "neighbours", "kernel", "forest", "network"),
                "linear.c": Float(1e-5, 1e3, log=True).active_if(linear),
                "near.k": Int(1, 100, log=True).active_if(near),
                "near.metric": Categorical("manhattan", "euclidean", "cosine").active_if(near),
                "near.weights": Categorical("uniform", "distance").active_if(near),
                "kernel.shape": Categorical("rbf", "poly", "linear").active_if(kernel),
                "kernel.c": Float(1e-3, 1e3, log=True).active_if(kernel),
                "kernel.gamma": Float(1e-6, 1, log=True).active_if(
                    In("kernel.shape", ["rbf", "poly"])
                ),
                "kernel.degree": Int(2, 5).active_if(Eq("kernel.shape", "poly")),
                "forest.depth": Int(1, 20).active_if(forest),
                "forest.columns": Float(0.02, 1, log=True).active_if(forest),
                "forest.leaf": Int(1, 30, log=True).active_if(forest),
                "network.width": Int(4, 128, log=True).active_if(network),
                "network.rate": Float(1e-4, 0.3, log=True).active_if(network),
                "network.decay": Float(1e-6, 10, log=True).active_if(network),
            }
        )

    def loss(self, config: dict[str, Any]) -> float:
        """The share of wrong answers."""
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        steps: list[Any] = []
        if config["before"] == "scale":
            steps.append(StandardScaler())
        if config["before"] == "components":
            steps.append(PCA(config["components"], random_state=0))
        return _wrong(make_pipeline(*steps, self._classifier(config)))

    def _classifier(self, config: dict[str, Any]) -> Any:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.neural_network import MLPClassifier
        from sklearn.svm import SVC

        kind = config["kind"]
        if kind == "linear":
            return LogisticRegression(C=config["linear.c"])
        if kind == "neighbours":
            return KNeighborsClassifier(
                config["near.k"], metric=config["near.metric"], weights=config["near.weights"]
            )
        if kind == "kernel":
            return SVC(
                kernel=config["kernel.shape"],
                C=config["kernel.c"],
                gamma=config.get("kernel.gamma", 1.0),
                degree=config.get("kernel.degree", 3),
            )
        if kind == "forest":
            return RandomForestClassifier(
                30,
                max_depth=config["forest.depth"],
                max_features=config["forest.columns"],
                min_samples_leaf=config["forest.leaf"],
                random_state=0,
            )
        return MLPClassifier(
            (config["network.width"],),
            learning_rate_init=config["network.rate"],
            alpha=config["network.decay"],
            max_iter=20,
            random_state=0,
        )


class Network:
    """Find how to train one network of one hidden layer in 15 passes over the data."""

    def __init__(self) -> None:
        self.space = Space(
            activation=Categorical("logistic", "tanh", "relu"),
            width=Int(4, 64, log=True),
            batch=Int(16, 256, log=True),
            rate=Float(1e-4, 1.0, log=True),
            schedule=Categorical("constant", "invscaling"),
            decay=Float(1e-6, 1.0, log=True),
            momentum=Float(0.0, 0.99),
            nesterov=Bool(),
        )

    def loss(self, config: dict[str, Any]) -> float:
        """The share of wrong answers; 0.9, that of a guess, where training diverges."""
        from sklearn.neural_network import MLPClassifier

        model = MLPClassifier(
            (config["width"],),
            activation=config["activation"],
            solver="sgd",
            batch_size=config["batch"],
            learning_rate_init=config["rate"],
            learning_rate=config["schedule"],
            power_t=0.25,
            alpha=config["decay"],
            momentum=config["momentum"],
            nesterovs_momentum=config["nesterov"],
            max_iter=15,
            random_state=0,
        )
        try:
            return _wrong(model)
        except ValueError:  # weights that are no longer finite
            return 0.9
