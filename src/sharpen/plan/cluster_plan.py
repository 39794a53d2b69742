"""Plans of a recipe's training on devices one need not have: ``sharpen plan --devices 64xH100``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.core.assets import ASSETS, asset_path
from sharpen.core.config import Document, Marks, apply_overrides, load_yaml
from sharpen.core.errors import ConfigError
from sharpen.core.model_spec import ModelSpec
from sharpen.core.recipe import Recipe, StageSpec, load_recipe
from sharpen.plan.hardware import Cluster, parse_devices
from sharpen.plan.layout_cost import LayoutCost, layout_cost, step_flops
from sharpen.plan.layout_search import SearchResult, search_layouts
from sharpen.plan.layouts import Candidate, ClusterJob, layout_problems
from sharpen.plan.memory import live_bytes, model_states

__all__ = ["ClusterPlan", "on_devices"]

_FORMAT = 1
_SEQ_LEN = 512  # of a train stage without a data stage before it
# Psi: weights in products; L layers; h_q query size; s tokens of a sequence.
_CONVENTION = {
    False: "model FLOPs a token: 6 Psi + 12 L h_q s, no causal discount",
    True: "model FLOPs a token: 6 Psi + 6 L h_q (s + 1), causal",
}


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What a recipe's training needs on a cluster, and how else it could be laid out."""

    name: str
    """The recipe's name."""

    job: ClusterJob
    """What is trained."""

    cluster: Cluster
    """On what."""

    given: LayoutCost | None
    """The recipe's own layout; None when a search was asked for and it is not legal there."""

    search: SearchResult | None = None
    """Other layouts, when asked for."""

    causal: bool = False
    """Whether MFU counts only the positions that attention sees."""

    stage: str = "train"
    """Name of the stage that trains."""

    @property
    def best(self) -> LayoutCost:
        """The fastest layout found, or the recipe's own without a search."""
        if self.search is not None:
            return self.search.ranked[0]
        assert self.given is not None
        return self.given

    @property
    def fits(self) -> bool:
        """Whether :attr:`best` fits."""
        return self.best.fits

    def accounting(self) -> list[dict[str, Any]]:
        """Bytes of model states on a device by stage of ZeRO, all weights trained by AdamW.

        ``built`` is what a run of the trainer holds, ``paper`` the table of the ZeRO paper; both
        are lists of ``parameters``, ``gathered``, ``gradients``, ``optimizer``, their ``total``,
        and what a pass needs ``beside`` (16-bit copies at stage 0, live units at stage 3).
        """
        spec, ranks = self.job.spec, self.best.layout.state_ranks
        rows: list[dict[str, Any]] = []
        for stage in range(4):
            row: dict[str, Any] = {"stage": stage, "ranks": ranks}
            for kind in ("built", "paper"):
                states = model_states(
                    spec,
                    stage=stage,
                    ranks=ranks,
                    element_bytes=self.job.element_bytes,
                    accounting=kind,
                )
                # Copies of stage 0 and live units come and go in a pass; stage 2 keeps its own.
                beside = states.copies if stage == 0 else 0
                if kind == "built" and stage == 3:
                    beside = live_bytes(spec, parameter_bytes=self.job.element_bytes)
                gathered = states.copies if stage == 2 else 0
                row[kind] = {
                    "parameters": states.parameters,
                    "gathered": gathered,
                    "gradients": states.gradients,
                    "optimizer": states.optimizer,
                    "total": states.parameters + gathered + states.gradients + states.optimizer,
                    "beside": beside,
                }
            rows.append(row)
        return rows

    def overrides(self, cost: LayoutCost) -> list[str]:
        """What to add to the recipe's command line for a layout; empty when it cannot run."""
        layout = cost.layout
        if not layout.runs:
            return []
        found = []
        if self.cluster.count <= self.cluster.device.per_machine:
            found.append(f"nproc={self.cluster.count}")
        keys = ("dp_replicate", "dp_shard", "ring", "sp", "zero_stage")
        found += [f"parallel.{key}={getattr(layout, key)}" for key in keys]
        found += [f"micro_batch={layout.micro_batch}", f"act.mode={layout.recompute}"]
        found += [f"act.every={layout.recompute_every}"]
        found += [f"act.offload={'cpu' if layout.offload else 'none'}"]
        found.append(f"act.tiled_mlp={'auto' if layout.tiled_mlp else 0}")
        found.append(f"act.attention_chunk={layout.attention_chunk}")
        found.append(f"act.attention_store={'cpu' if layout.attention_stored else 'none'}")
        return [f"{self.stage}.{change}" for change in found]

    def to_dict(self, top: int = 10) -> dict[str, Any]:
        """Plain data, as ``sharpen plan --devices ... --json`` prints it.

        Args:
            top: alternatives listed.
        """
        spec, job, best = self.job.spec, self.job, self.best
        document: dict[str, Any] = {
            "format": _FORMAT,
            "name": self.name,
            "fits": self.fits,
            "model": {
                "parameters": spec.num_parameters,
                "matmul_parameters": spec.matmul_parameters,
                "layer_parameters": spec.layer_parameters,
                "embedding_parameters": spec.embedding_parameters,
                "trained_parameters": job.trained_parameters,
            },
            "job": {
                "method": job.method,
                "dtype": job.dtype,
                "seq_len": job.seq_len,
                "global_batch": job.global_batch,
            },
            "devices": self.cluster.to_dict(),
            "memory_bytes": self.cluster.memory_bytes,
            "accounting": self.accounting(),
            **best.to_dict(),
            "traffic": [self._traffic(t) for t in best.traffic],
            "flops": {
                "a_token": step_flops(job, causal=self.causal) / (job.global_batch * job.seq_len),
                "a_step": step_flops(job, causal=self.causal),
                "convention": _CONVENTION[self.causal],
            },
            "overrides": self.overrides(best),
            "searched": None,
            "alternatives": [],
        }
        if self.search is not None:
            document["searched"] = {"tried": self.search.tried, "fitting": self.search.fitting}
            document["alternatives"] = [
                {**cost.to_dict(), "overrides": self.overrides(cost)}
                for cost in self.search.ranked[:top]
            ]
        return document

    def _traffic(self, traffic: Any) -> dict[str, Any]:
        crosses = self.cluster.crosses(traffic.ranks, traffic.stride)
        return {
            "purpose": traffic.purpose,
            "bytes": traffic.bytes,
            "ranks": traffic.ranks,
            "over": "network" if crosses else "link",
        }

    def table(self, top: int = 10) -> str:
        """The plan as text.

        Args:
            top: alternatives listed.
        """
        job, cluster, best = self.job, self.cluster, self.best
        lines = [
            f"{self.name}: {job.spec.num_parameters:,} parameters, {job.method}, {job.dtype}, "
            f"{job.global_batch} x {job.seq_len} tokens a step",
            f"{cluster.count} x {cluster.device.name}, {cluster.device.per_machine} a machine, "
            f"{cluster.device.link} {cluster.device.link_gb_s:g} GB/s, network "
            f"{cluster.device.network_gb_s:g} GB/s a device",
            "",
            f"layout: {best.layout.label()}; forward passes a step: {best.micro_batches}",
            "",
            f"{'memory of a rank':<20}{'GB':>9}{'share':>8}",
        ]
        for part, size in sorted(best.memory.items(), key=lambda item: -item[1]):
            if size:
                lines.append(f"  {part:<18}{size / 1e9:>9.2f}{size / best.peak_bytes:>8.0%}")
        lines.append(f"  {'peak':<18}{best.peak_bytes / 1e9:>9.2f}")
        lines += ["", f"{'states by stage':<20}{'built':>9}{'paper':>9}  GB, {self._sharing()}"]
        for row in self.accounting():
            built, paper = row["built"]["total"], row["paper"]["total"]
            lines.append(f"  stage {row['stage']:<12}{built / 1e9:>9.2f}{paper / 1e9:>9.2f}")
        lines += ["", f"{'a rank sends a step':<20}{'GB':>9}  over"]
        for row in map(self._traffic, best.traffic):
            lines.append(
                f"  {row['purpose']:<18}{row['bytes'] / 1e9:>9.2f}  {row['over']}, "
                f"{row['ranks']} ranks"
            )
        if not best.traffic:
            lines.append("  nothing")
        lines += ["", f"{'time of a step':<20}{'s':>9}{'share':>8}"]
        for part, seconds in sorted(best.step_s_by.items(), key=lambda item: -item[1]):
            if seconds:
                lines.append(f"  {part:<18}{seconds:>9.3f}{seconds / best.step_s:>8.0%}")
        lines += [
            f"  {'step':<18}{best.step_s:>9.3f}",
            "",
            f"{best.tokens_per_s:,.0f} tokens/s, MFU {best.mfu:.1%}, HFU {best.hfu:.1%} "
            f"({_CONVENTION[self.causal]})",
        ]
        if self.search is not None:
            lines += ["", *self._alternatives(top)]
        lines += ["", self._verdict()]
        return "\n".join(lines)

    def _sharing(self) -> str:
        return f"shared by {self.best.layout.state_ranks} ranks"

    def _alternatives(self, top: int) -> list[str]:
        assert self.search is not None
        lines = [
            f"{self.search.fitting} of {self.search.tried} layouts fit; the fastest:",
            f"{'step, s':>9}{'MFU':>7}{'GB':>8}  layout",
        ]
        for cost in self.search.ranked[:top]:
            mark = "" if cost.layout.runs else "   (planned only)"
            lines.append(
                f"{cost.step_s:>9.3f}{cost.mfu:>7.1%}{cost.peak_bytes / 1e9:>8.1f}  "
                f"{cost.layout.label()}{mark}"
            )
        if self.given is None:
            lines.append("The recipe's own layout is not legal on these devices.")
        else:
            fits = "fits" if self.given.fits else f"over by {self.given.over_bytes / 1e9:.2f} GB"
            lines.append(
                f"{self.given.step_s:>9.3f}{self.given.mfu:>7.1%}"
                f"{self.given.peak_bytes / 1e9:>8.1f}  the recipe's own, {fits}"
            )
        if keys := self.overrides(self.best):
            lines += ["To use the first:", f"  {' '.join(keys)}"]
        return lines

    def _verdict(self) -> str:
        best = self.best
        have = f"{self.cluster.memory_bytes / 1e9:.2f} GB"
        if best.fits:
            return f"It fits: {best.peak_bytes / 1e9:.2f} of {have}."
        return (
            f"It does not fit: {best.peak_bytes / 1e9:.2f} GB needed, {have} there, over by "
            f"{best.over_bytes / 1e9:.2f} GB. Look for a layout that does: --search."
        )


def on_devices(
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    devices: str | Path | Cluster,
    search: bool = False,
    all_axes: bool = False,
    causal: bool = False,
) -> ClusterPlan:
    """Plan a recipe's training on devices, without them and without reading weights.

    Args:
        source: a recipe: a YAML file, or the same as plain data.
        overrides: ``["train.micro_batch=2"]`` or ``{"train.micro_batch": 2}``.
        devices: such as ``64xH100``; see :func:`~sharpen.plan.hardware.parse_devices`.
        search: look for the fastest layout that fits, beside the recipe's own.
        all_axes: search tensor and pipeline parallelism too, which the trainer does not run.
        causal: MFU and HFU count only the positions that attention sees.

    Returns:
        The plan; ``print(plan.table())``, ``.fits``, ``.best``, ``.to_dict()``.

    Raises:
        ConfigError: the recipe or the devices are wrong, it has no train stage, its layout is not
            legal on these devices, or (``search``) no layout fits.
        AssetNotInstalled: its model is an asset that is not installed.
    """
    cluster = parse_devices(devices)
    recipe, legal = _load(source, overrides, cluster.count, search)
    stage = _train_stage(recipe)
    job = cluster_job(recipe, stage)
    given = None
    if legal:
        own = _own_layout(stage.config, cluster.count)
        if problems := layout_problems(job, own, cluster.count):
            if not search:
                where = recipe.document.marks.at((stage.name,))
                raise ConfigError(f"{where + ': ' if where else ''}{' '.join(problems)}")
        else:
            given = layout_cost(job, own, cluster, causal=causal)
    if not search:
        return ClusterPlan(recipe.name, job, cluster, given, causal=causal, stage=stage.name)
    found = search_layouts(job, cluster, all_axes=all_axes, causal=causal)
    if not found.ranked:
        raise ConfigError(_nothing_fits(job, cluster, found))
    return ClusterPlan(recipe.name, job, cluster, given, found, causal, stage.name)


def _nothing_fits(job: ClusterJob, cluster: Cluster, found: SearchResult) -> str:
    subject = f"{job.spec.num_parameters:,} parameters on {cluster.count} x {cluster.device.name}"
    if found.closest is None:
        return f"no layout is legal: {subject} with global_batch={job.global_batch}."
    nearest = found.closest
    part, size = max(nearest.memory.items(), key=lambda item: item[1])
    return (
        f"no layout fits: {subject}. The closest ({nearest.layout.label()}) needs "
        f"{nearest.peak_bytes / 1e9:.2f} GB of {cluster.memory_bytes / 1e9:.2f} GB, over by "
        f"{nearest.over_bytes / 1e9:.2f} GB, most of it {part} ({size / 1e9:.2f} GB). Use more "
        "devices, shorter sequences (data.max_tokens), a smaller train.global_batch, or "
        "train.method=lora."
    )


def _train_stage(recipe: Recipe) -> StageSpec:
    for stage in recipe.stages:
        if stage.type.name == "train":
            return stage
    raise ConfigError(
        f"the recipe '{recipe.name}' has no train stage, so there is nothing to lay out on devices."
    )


def cluster_job(recipe: Recipe, stage: StageSpec) -> ClusterJob:
    """The job of a recipe's train stage."""
    config, context = stage.config, recipe.context(stage)
    assert context.model is not None
    path = asset_path(context.model) if context.model in ASSETS else context.resolve(context.model)
    spec = ModelSpec.from_ref(path)
    data = next((c for c in context.stages.values() if hasattr(c, "max_tokens")), None)
    return ClusterJob(
        spec=spec,
        seq_len=getattr(data, "max_tokens", _SEQ_LEN),
        global_batch=config.global_batch,
        adapters=config.adapters,
        nf4=config.method == "qlora",
        # Which half trains is known when it starts; of tied embeddings, both or none.
        frozen_parameters=spec.num_parameters // 2 if config.method == "half" else 0,
        dtype=config.dtype,
        state_ratio=config.state_ratio(spec),
    )


def _load(
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any],
    devices: int,
    search: bool,
) -> tuple[Recipe, bool]:
    """The recipe as it would start on so many devices, and whether its layout is legal there.

    A search needs no layout to start from; then the recipe is read with one process.
    """
    document = Document(dict(source), Marks()) if isinstance(source, Mapping) else load_yaml(source)
    data = apply_overrides(document, overrides).data
    key = "train"
    if isinstance(data, dict):
        uses = {k: v.get("uses", k) for k, v in data.items() if isinstance(v, dict)}
        key = next((k for k, name in uses.items() if name == "train"), key)
        if key not in data:
            return load_recipe(source, overrides), True

    def changed(more: dict[str, Any]) -> list[str] | dict[str, Any]:
        if isinstance(overrides, Mapping):
            return {**overrides, **more}
        return [*overrides, *(f"{name}={value}" for name, value in more.items())]

    try:
        return load_recipe(source, changed({f"{key}.nproc": devices})), True
    except ConfigError:
        if not search:
            raise
    alone = {f"{key}.nproc": 1, f"{key}.parallel": {}}
    return load_recipe(source, changed(alone)), False


def _own_layout(config: Any, devices: int) -> Candidate:
    """The recipe's layout on so many devices."""
    degrees = config.parallel.layout(devices)
    return Candidate(
        dp_replicate=degrees.dp_replicate,
        dp_shard=degrees.dp_shard,
        ring=degrees.ring,
        sp=degrees.sp,
        zero_stage=config.parallel.zero_stage,
        micro_batch=config.micro_batch,
        recompute=config.act.mode,
        recompute_every=config.act.every,
        offload=config.act.offload != "none",
        tiled_mlp=bool(config.act.tiled_mlp),
        attention_chunk=config.act.attention_chunk,
        attention_stored=config.act.attention_store != "none",
    )
