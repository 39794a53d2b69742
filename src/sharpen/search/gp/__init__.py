"""Bayesian optimization with Gaussian processes: model, acquisition functions, optimizer."""

from sharpen.core.lazy import exports

__all__ = ["EHVI", "GP", "ContextualGP", "GaussianProcess", "MultiFidelityGP", "ParEGO", "TuRBO"]

__getattr__ = exports(
    "sharpen.search.gp",
    {
        "ContextualGP": "sharpen.search.gp.contextual",
        "EHVI": "sharpen.search.gp.ehvi",
        "GP": "sharpen.search.gp.optimizer",
        "GaussianProcess": "sharpen.search.gp.model",
        "MultiFidelityGP": "sharpen.search.gp.multi_fidelity",
        "ParEGO": "sharpen.search.gp.parego",
        "TuRBO": "sharpen.search.gp.turbo",
    },
)
