"""Acquisition functions of BoTorch on our models; needs the extra ``botorch``.

What is long to write and slow however it is written comes from there, and is told apart from ours
by its name alone:

- predictive entropy search: Jose Miguel Hernandez-Lobato, Matthew W. Hoffman and Zoubin Ghahramani,
  "Predictive Entropy Search for Efficient Global Optimization of Black-box Functions", NIPS 2014
- noisy expected hypervolume improvement: Samuel Daulton, Maximilian Balandat and Eytan Bakshy,
  "Parallel Bayesian Optimization of Multiple Noisy Objectives with Expected Hypervolume
  Improvement", NeurIPS 2021; its logarithm: Ament et al., NeurIPS 2023

A model is handed over with its hyper-parameters, its data and its noise, so both sides have one
posterior. BoTorch maximizes, so losses are negated on the way.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from sharpen.core.errors import (
    BusyError,
    ConfigError,
    DependencyNotInstalled,
    StorageError,
)
from sharpen.core.files import FileLock, cache_home
from sharpen.search.gp.acquisition import Acquisition
from sharpen.search.gp.model import GaussianProcess

__all__ = ["check_botorch", "noisy_hypervolume_improvement", "predictive_entropy", "to_botorch"]


_log = logging.getLogger(__name__)
_COMPILE_S = 300.0
_WARPED = "a model of warped inputs is not handed to BoTorch. Set warp=False."


def check_botorch(warp: bool) -> None:
    """Refuse at once what :func:`to_botorch` would refuse later.

    Raises:
        DependencyNotInstalled: BoTorch is not installed.
        ConfigError: inputs are warped.
    """
    if find_spec("botorch") is None:
        raise DependencyNotInstalled.for_feature(
            "predictive entropy search and noisy hypervolume improvement", "botorch"
        )
    if warp:
        raise ConfigError(_WARPED)


def to_botorch(model: GaussianProcess, *, negate: bool = False) -> Any:
    """A ``botorch.models.SingleTaskGP`` with the posterior of a model.

    Args:
        model: with one column of targets.
        negate: whether its targets and mean change sign.

    Raises:
        DependencyNotInstalled: BoTorch is not installed.
        ConfigError: the model's inputs are warped.
    """
    check_botorch(model.hyper.warp is not None)
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
    from gpytorch.means import ConstantMean

    if type(model) is not GaussianProcess:
        raise ConfigError("only a process of plain values is handed to BoTorch.")
    hyper = model.hyper
    d, sign = len(hyper.lengthscales), -1.0 if negate else 1.0
    kind = RBFKernel(ard_num_dims=d)
    if model.kernel == "matern52":
        kind = MaternKernel(nu=2.5, ard_num_dims=d)
    kernel = ScaleKernel(kind).double()
    kernel.outputscale = hyper.scale
    kernel.base_kernel.lengthscale = hyper.lengthscales[None]
    mean = ConstantMean().double()
    mean.constant = sign * float(model.mean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on data that are not standardized
        made = SingleTaskGP(
            model.features,
            sign * model.targets[:, None],
            (model.known_noise + hyper.noise)[:, None],
            covar_module=kernel,
            mean_module=mean,
            outcome_transform=None,
        )
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return made.eval()


def _quiet(function: Any) -> Acquisition:
    """An acquisition of BoTorch as one of ours, without warnings about single precision."""

    def value(points: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = function(points[:, None])
        return found

    return value


def predictive_entropy(model: GaussianProcess, places: Tensor) -> Acquisition:
    """PES: how much a point tells of where the least loss is, by expectation propagation.

    Args:
        model: of the loss, with one column of targets.
        places: [k, p] where functions drawn from it are least.

    Raises:
        DependencyNotInstalled: BoTorch is not installed.
    """
    peer = to_botorch(model)
    from botorch.acquisition.predictive_entropy_search import qPredictiveEntropySearch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = qPredictiveEntropySearch(peer, places, maximize=False)
    return _quiet(made)


def noisy_hypervolume_improvement(
    models: Sequence[GaussianProcess], seen: Tensor, reference: Tensor, seed: int
) -> Acquisition:
    """The logarithm of the hypervolume that a point is expected to add, over samples of the front.

    Args:
        models: one an objective, less is better, each with one column of targets.
        seen: [n, p] evaluated points, whose values are sampled.
        reference: [m] what is worse than all that counts.
        seed: of the samples.

    Raises:
        DependencyNotInstalled: BoTorch is not installed.
    """
    peers = [to_botorch(model, negate=True) for model in models]
    from botorch.acquisition.multi_objective.logei import (
        qLogNoisyExpectedHypervolumeImprovement,
    )
    from botorch.models import ModelListGP
    from botorch.sampling import SobolQMCNormalSampler

    _compile_kernel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = qLogNoisyExpectedHypervolumeImprovement(
            ModelListGP(*peers),
            ref_point=(-reference).tolist(),
            X_baseline=seen,
            sampler=SobolQMCNormalSampler(torch.Size([64]), seed=seed),
            prune_baseline=True,
        )
    return _quiet(made)


def _compile_kernel() -> None:
    """Let BoTorch compile its kernel, once a machine, in a folder whose lock dies with its holder.

    Torch marks a folder by a file while it compiles, and waits for ever for the end of a process
    that was killed meanwhile. Under a lock of our own, such a file is nobody's.
    """
    from botorch.acquisition.multi_objective import logei

    load = getattr(logei, "_try_load_fused_kernel", None)  # not public: it may go
    if load is None:
        return
    folder = cache_home() / "torch_extensions"
    lock = FileLock(folder.with_suffix(".lock"), "the kernel of BoTorch")
    before = os.environ.get("TORCH_EXTENSIONS_DIR")
    try:
        lock.acquire(timeout_s=_COMPILE_S)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.rglob("lock"):
            left.unlink(missing_ok=True)
        os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load()
    except (BusyError, StorageError, OSError) as error:
        _log.debug("BoTorch computes hypervolumes without its kernel: %s", error)
        logei._load_attempted = True
    finally:
        if before is None:
            os.environ.pop("TORCH_EXTENSIONS_DIR", None)
        else:
            os.environ["TORCH_EXTENSIONS_DIR"] = before
        lock.release()
