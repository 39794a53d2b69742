"""Objectives under conditions nobody controls: the best for each, or the best on average.

Peter I. Frazier, "A Tutorial on Bayesian Optimization", arXiv:1807.02811, 2018, section 5.6; the
model of both: Andreas Krause and Cheng Soon Ong, "Contextual Gaussian Process Bandit Optimization",
NIPS 2011; the mean over conditions: Brian J. Williams, Thomas J. Santner and William I. Notz,
"Sequential Design of Computer Experiments to Minimize Integrated Response Functions", Statistica
Sinica 10, 2000, section 3; Saul Toscano-Palmerin and Peter I. Frazier, "Bayesian Optimization with
Expensive Integrands", SIAM Journal on Optimization 32, 2022::

    f(x, w) ~ GP              one kernel over configuration and context
    known w                   x = argmax of the acquisition for f(., w); the best so far is the
                              least posterior mean at w over the configurations evaluated
    F(x) = sum_m p_m f(x, w_m)
    mean, cov of F            those of f, averaged over w_m, or over pairs of them
    unknown w                 x = argmax of the acquisition for F, then
                              w = argmax_m cov(F(x), f(x, w_m))^2 / (var f(x, w_m) + e)
    recommended               the configuration evaluated of the least posterior mean of F

w_m are all contexts where they are at most 32, by their weights, else 32 points of a Sobol
sequence: the space of contexts says how they are distributed, as it does for configurations.

Differs from the papers: x and w are chosen one after the other, w for the largest fall of the
variance of F(x). Time as for GP, 32 times over for the acquisition where w is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sharpen.core.errors import ConfigError
from sharpen.core.optimizer import Capabilities, Proposal, Recommendation
from sharpen.core.parameters import Categorical
from sharpen.core.space import Space, random_stream
from sharpen.search.gp.features import Features
from sharpen.search.gp.model import GaussianProcess
from sharpen.search.gp.optimizer import GP
from sharpen.search.gp.surrogates import Fitted, believe, one_thread
from sharpen.search.sobol import Sobol

__all__ = ["AtContext", "ContextualGP", "OverContexts"]

Floats = npt.NDArray[np.float64]

_NODES = 32


class AtContext(GaussianProcess):
    """A process over configuration and context, seen as one of the configuration alone.

    Args:
        model: of both, context last.
        context: [c] features of the context.
    """

    is_plain = False

    def __init__(self, model: GaussianProcess, context: Tensor) -> None:
        self.__dict__.update(model.__dict__)
        self._context = context

    def scaled(self, points: Tensor) -> Tensor:
        """See :meth:`GaussianProcess.scaled`; points with a context keep theirs."""
        if points.shape[1] < len(self.hyper.lengthscales):
            points = _beside(points, self._context)
        return super().scaled(points)

    def append(
        self, features: Tensor, targets: Tensor, noise: Tensor | None = None
    ) -> GaussianProcess:
        """See :meth:`GaussianProcess.append`; the data are of this context."""
        return super().append(_beside(features, self._context), targets, noise)


class OverContexts(GaussianProcess):
    """The mean over contexts of a process over configuration and context.

    Args:
        model: of both, context last.
        contexts: [m, c] features of the contexts.
        weights: [m] that sum to 1.
    """

    is_plain = False

    def __init__(self, model: GaussianProcess, contexts: Tensor, weights: Tensor) -> None:
        self.__dict__.update(model.__dict__)
        self._base, self._contexts, self._shares = model, contexts, weights
        # Two contexts of one configuration are as far apart at every configuration.
        middle = torch.full((1, self._width), 0.5, dtype=torch.float64)
        among = model.prior(self._pairs(middle), self._pairs(middle))
        self._variance = float(weights @ among @ weights)

    @property
    def _width(self) -> int:
        return len(self.hyper.lengthscales) - self._contexts.shape[1]

    def _pairs(self, points: Tensor) -> Tensor:
        """[q m, p + c] each point under every context."""
        repeated = points.repeat_interleave(len(self._contexts), 0)
        return torch.cat([repeated, self._contexts.repeat(len(points), 1)], 1)

    def _averaged(self, values: Tensor, count: int) -> Tensor:
        """[q, ...] from [q m, ...] values."""
        grouped = values.reshape(count, len(self._shares), *values.shape[1:])
        found: Tensor = torch.einsum("qm...,m->q...", grouped, self._shares)
        return found

    @property
    def prior_variance(self) -> float:
        """See :meth:`GaussianProcess.prior_variance`."""
        return self._variance

    def prior(self, points: Tensor, others: Tensor) -> Tensor:
        """See :meth:`GaussianProcess.prior`."""
        both = self._base.prior(self._pairs(points), self._pairs(others))
        half = self._averaged(both, len(points))
        return self._averaged(half.mT, len(others)).mT

    def _cross(self, points: Tensor) -> Tensor:
        return self._averaged(self._base._cross(self._pairs(points)), len(points))

    def append(
        self, features: Tensor, targets: Tensor, noise: Tensor | None = None
    ) -> GaussianProcess:
        """Nothing measures a mean over contexts; append to the process it is of.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("data have a context each: append them before the mean is taken.")


class ContextualGP(GP):
    """Bayesian optimization under contexts; see the module for the method.

    ``ask(context=...)`` gives the configuration for a context that is known; without one, both are
    chosen, for the least mean over all contexts. Arguments are those of
    :class:`~sharpen.search.gp.optimizer.GP`; ``acquisition`` is ``auto`` (log EI), ``log_ei``,
    ``pi``, ``mes`` or ``ucb``, and losses are not bent.

    Examples:
        >>> from sharpen.core.parameters import Float
        >>> space, contexts = Space(x=Float(0, 1)), Space(load=Float(0, 1))
        >>> optimizer = ContextualGP(space, contexts=contexts, n_init=4)
        >>> for _ in range(8):
        ...     candidate = optimizer.ask()[0]
        ...     loss = (candidate.config["x"] - candidate.context["load"]) ** 2
        ...     optimizer.tell([candidate.result(loss)])
        >>> abs(optimizer.recommend().config["x"] - 0.5) < 0.2
        True
    """

    name: ClassVar[str] = "contextual-gp"
    capabilities: ClassVar[Capabilities] = Capabilities(constraints=True, context=True)
    takes_related: ClassVar[bool] = False
    acquisitions: ClassVar[tuple[str, ...]] = ("auto", "log_ei", "pi", "mes", "ucb")
    hyperparameters: ClassVar[Space | None] = Space(
        acquisition=Categorical(*acquisitions),
        kernel=Categorical("matern52", "rbf"),
        hyper=Categorical("map", "bayes"),
    )

    def restart(self) -> None:
        """See :meth:`Optimizer.restart`."""
        super().restart()
        if self.contexts is None:
            return
        self._about = Features(self.contexts)
        if self.contexts.cardinality <= _NODES and not self.contexts.is_conditional:
            self._nodes = self.contexts.grid(_NODES)
            shares = np.array([_share(self.contexts, node) for node in self._nodes])
        else:
            start = Sobol(self.contexts, seed=self.seed)
            self._nodes = [start.propose(k) for k in range(_NODES)]
            shares = np.ones(_NODES)
        self._weights = torch.from_numpy(shares / shares.sum())
        self._node_features = self._context_features(self._nodes)

    # -- proposals ------------------------------------------------------------------------------

    def propose_in(self, context: Mapping[str, Any], number: int) -> dict[str, Any]:
        """See :meth:`Optimizer.propose_in`."""
        if self._is_initial():
            return self._initial(number)
        rng = random_stream(self.seed, number)
        with one_thread():
            losses = self._losses(rng)
            views = self._views(self._believed(losses), context)
            return self._search(views, losses, rng)[0]

    def propose(self, number: int) -> dict[str, Any] | Proposal:
        """See :meth:`Optimizer.propose`; where there are contexts, one is chosen too."""
        if self.contexts is None:
            return super().propose(number)
        if self._is_initial():
            # The nodes in an order of their own, so that each context meets other configurations.
            order = random_stream(self.seed, 0).permutation(len(self._nodes))
            node = self._nodes[order[number % len(order)]]
            return Proposal(config=self._initial(number), context=node)
        rng = random_stream(self.seed, number)
        with one_thread():
            losses = self._losses(rng)
            models = self._believed(losses)
            config = self._search(self._views(models, None), losses, rng)[0]
            context = self._nodes[self._most_telling(models["loss"].model, config)]
        return Proposal(config=config, context=context)

    def _is_initial(self) -> bool:
        known = int((self.seen.ok & self._true).sum())
        return known + len(self.pending) < self.n_init or known < 2

    def _most_telling(self, model: GaussianProcess, config: dict[str, Any]) -> int:
        """The context under which a measurement lowers the variance of F(x) most."""
        encoded = self.space.encode([config])
        x = torch.from_numpy(self._features(encoded.x, encoded.mask))
        pairs = torch.cat([x.expand(len(self._nodes), -1), self._node_features], 1)
        with torch.no_grad():
            covariance = model.covariance(pairs, pairs)
            told = (covariance @ self._weights) ** 2
            told = told / (covariance.diagonal().clamp(min=1e-12) + model.noise)
        return int(told.argmax())

    # -- models ---------------------------------------------------------------------------------

    def _context_features(self, contexts: list[dict[str, Any]]) -> Tensor:
        assert self.contexts is not None
        encoded = self.contexts.encode(contexts)
        return torch.from_numpy(self._about(encoded.x, encoded.mask))

    def _model(
        self,
        kind: str,
        rows: npt.NDArray[np.int64],
        values: Floats,
        noise: Floats | None,
        bend: bool,
    ) -> Fitted:
        if self.contexts is None:
            return super()._model(kind, rows, values, noise, bend)
        x = self._features(self.seen.x[rows], self.seen.mask[rows])
        under = [dict(self.history[int(k)].context) for k in self.seen.numbers[rows]]
        joint = np.concatenate([x, self._context_features(under).numpy()], axis=1)
        groups = np.append(self._features.groups, self._features.num_groups + self._about.groups)
        # The mean of bent losses is not the bent mean, so they stay as they are.
        return self._fit(kind, joint, groups, values, noise, bend and kind != "loss")

    def _believed(self, losses: Floats) -> dict[str, Fitted]:
        """All models, as if pending trials gave what is expected of them."""
        models = self._all_models(losses)
        trials = [self.pending[k] for k in sorted(self.pending)]
        if not trials:
            return models
        encoded = self.space.encode([t.config for t in trials])
        x = torch.from_numpy(self._features(encoded.x, encoded.mask))
        at = torch.cat([x, self._context_features([dict(t.context) for t in trials])], 1)
        return {kind: fitted.mapped(lambda m: believe(m, at)) for kind, fitted in models.items()}

    def _views(
        self, models: dict[str, Fitted], context: Mapping[str, Any] | None
    ) -> dict[str, Fitted]:
        """The models as functions of the configuration: at a context, or averaged over all."""

        def view(model: GaussianProcess) -> GaussianProcess:
            if context is None:
                return OverContexts(model, self._node_features, self._weights)
            return AtContext(model, self._context_features([dict(context)])[0])

        return {kind: fitted.mapped(view) for kind, fitted in models.items()}

    def _pending_features(self) -> Tensor:
        # They are in the models already, each under its own context.
        if self.contexts is None:
            return super()._pending_features()
        return torch.empty(0, len(self._features), dtype=torch.float64)

    def _incumbent(self, loss: Fitted, seen: Tensor, losses: Floats, noisy: bool) -> Tensor:
        return super()._incumbent(loss, seen, losses, noisy or self.contexts is not None)

    # -- the end --------------------------------------------------------------------------------

    def recommend(self) -> Recommendation:
        """The evaluated configuration of the least expected mean over all contexts."""
        if self.contexts is None:
            return super().recommend()
        return self._recommended(None)

    def recommend_in(self, context: Mapping[str, Any]) -> Recommendation:
        """The evaluated configuration of the least expected loss under one context.

        Raises:
            ConfigError: the context is wrong, there are none, or nothing feasible was told yet.
        """
        if self.contexts is None:
            raise ConfigError(f"this '{self.name}' was made for a problem without contexts.")
        return self._recommended(self.contexts.validate(context))

    def _recommended(self, context: Mapping[str, Any] | None) -> Recommendation:
        observed = super().recommend() if (self.seen.good & self._true).sum() < 3 else None
        if observed is not None:
            return observed
        with one_thread(), torch.no_grad():
            models = self._views(self._all_models(self.seen.imputed()[:, 0]), context)
            rows = np.flatnonzero(self._good(models))
            if not len(rows):
                rows = np.flatnonzero(self.seen.good & self._true)
            x = torch.from_numpy(self._features(self.seen.x[rows], self.seen.mask[rows]))
            loss = models["loss"]
            mean = loss.model.posterior(x)[0].numpy()
        best = int(np.argmin(mean))
        number = int(self.seen.numbers[rows[best]])
        predicted = float(loss.transform.inverse(mean[best : best + 1])[0])
        where = "mean over all contexts" if context is None else "loss under the context"
        return Recommendation(
            config=dict(self.history[number].config),
            predicted={self.objectives[0].name: self.objectives[0].loss(predicted)},
            why=f"least expected {where}, trial {number}",
        )


def _share(contexts: Space, node: Mapping[str, Any]) -> float:
    """How likely a context is, up to a factor."""
    share = 1.0
    for name, value in node.items():
        parameter = contexts[name]
        if isinstance(parameter, Categorical) and parameter.weights is not None:
            share *= parameter.weights[parameter.choices.index(value)]
    return share


def _beside(points: Tensor, context: Tensor) -> Tensor:
    return torch.cat([points, context.expand(len(points), -1)], 1)
