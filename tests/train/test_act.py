import gc
import os
import resource
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import distributed
from sharpen.core.errors import ConfigError, StorageError
from sharpen.data import TokenDataset
from sharpen.train import ActConfig, ParallelConfig, StepReport, TrainConfig, Trainer
from sharpen.train.act import ActivationOffload, OffloadWarning, apply_act, make_store
from sharpen.train.tensor_store import FileStore
from small_models import save_small_dataset, small_model


@pytest.mark.parametrize("mode", ["full", "selective"])
@pytest.mark.parametrize("documents", [False, True])
def test_gradients_are_bit_by_bit_those_without_offload(
    tmp_path: Path, mode: str, documents: bool
) -> None:
    ids = torch.arange(192).view(2, 96)
    numbers = (torch.arange(96) // 40).expand(2, 96) if documents else None
    store = FileStore(tmp_path)
    gradients = []
    for offload in (None, ActivationOffload(store)):
        model = small_model(num_layers=5).train()
        model.checkpointing = mode  # type: ignore[assignment]
        model.offload = offload
        for _ in range(2):  # the second pass writes where the first has been read
            model(ids, document_ids=numbers).logsumexp(-1).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    # Of each pass, all blocks but the last one's inputs, at least.
    assert store.bytes_written >= 2 * 4 * 2 * 96 * 64 * 4
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradients[1][name], gradient)
    store.close()


def test_of_many_blocks_three_at_most_are_here(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    offload = ActivationOffload(store)
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def block(x: Tensor) -> Tensor:
        return x.sin().exp()

    x = torch.randn(64, 64, requires_grad=True)
    for number in range(8):
        x = x * 1.0
        alive.append(weakref.ref(x))
        with offload.unit(number):
            x = checkpoint(block, x, use_reentrant=False)
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 3
    x.sum().backward()
    store.close()


def test_what_is_kept_is_freed_with_its_graph_and_its_place_used_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    offload = ActivationOffload(store)
    ends = []
    for _ in range(3):
        x = torch.randn(64, 64, requires_grad=True)
        for number in range(4):
            with offload.unit(number):
                x = checkpoint(torch.sin, x.exp(), use_reentrant=False)
        x.sum().backward()
        del x
        ends.append(store._end)
    assert ends[1] == ends[2]
    store.close()


def test_parameters_numbers_and_small_tensors_stay_where_they_are(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    offload = ActivationOffload(store)
    layer, x = torch.nn.Linear(64, 64), torch.randn(3, 64, requires_grad=True)
    index = torch.zeros(2000, dtype=torch.int64)
    for number in range(3):
        with offload.unit(number):
            y = layer(x).sum() + layer.weight.view(-1)[index].sum()
    y.backward()
    assert store.bytes_written == 0
    store.close()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 5, 7),
        torch.randn(3, 5, 7).transpose(0, 2),
        torch.randn(3, 10, 7)[:, ::2],
        torch.randn(40, 7)[5:25].bfloat16().view(4, 5, 7).permute(1, 2, 0),
        torch.randn(4, 5, dtype=torch.float64),
    ],
)
def test_a_tensor_comes_back_with_its_values_shape_and_order(
    tmp_path: Path, tensor: Tensor
) -> None:
    store = FileStore(tmp_path / "new")
    stored = store.put(tensor)
    stored.drop()
    for _ in range(2):
        stored.fetch()
        back = stored.get()
        assert back.data_ptr() != tensor.data_ptr()
        assert torch.equal(back, tensor) and back.dtype == tensor.dtype
        if tensor.permute(
            sorted(range(tensor.ndim), key=lambda i: -tensor.stride(i))
        ).is_contiguous():
            assert back.stride() == tensor.stride()
        stored.drop()
    store.close()


def test_no_file_is_seen_in_the_folder(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put(torch.randn(2000)).settle()
    assert list(tmp_path.iterdir()) == []
    store.close()


def test_a_disk_that_is_full_is_an_error_that_says_so(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(StorageError, match="cannot keep tensors in"):
            FileStore(tmp_path).put(torch.zeros(4096)).settle()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_file_that_something_has_cut_is_an_error(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    stored = store.put(torch.zeros(4096))
    stored.drop()
    os.truncate(store._file, 100)
    with pytest.raises(StorageError, match="cut short"):
        stored.get()
    store.close()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="cannot keep tensors in"):
        FileStore(tmp_path / "taken")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offload": "nvme"}, "mode is 'none'"),
        ({"every": 2}, "mode is 'none'"),
        ({"mode": "full", "every": 0}, "every=0"),
        ({"tiled_mlp": -1}, "tiled_mlp=-1"),
        ({"tiled_loss": 0}, "tiled_loss=0"),
    ],
)
def test_options_that_say_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ActConfig(**options)


def test_a_model_that_cannot_compute_again_is_refused_unless_nothing_is_asked() -> None:
    apply_act(torch.nn.Linear(2, 2), ActConfig())
    with pytest.raises(ConfigError, match="the model is a Linear"):
        apply_act(torch.nn.Linear(2, 2), ActConfig(tiled_mlp="auto"))


def test_host_memory_on_a_cpu_is_no_offload_and_says_so() -> None:
    with pytest.warns(OffloadWarning, match="host memory already"):
        assert make_store("cpu", torch.device("cpu"), None) is None
    assert make_store("none", torch.device("cpu"), None) is None


def test_the_trainer_trains_to_the_same_weights_and_takes_its_store_off(tmp_path: Path) -> None:
    data = save_small_dataset(tmp_path / "data")
    weights = []
    for act in (
        ActConfig(),
        ActConfig(mode="selective", offload="nvme", tiled_loss=64),
        ActConfig(mode="full", every=2, offload="nvme"),
    ):
        model = small_model(num_layers=3)
        config = TrainConfig(steps=2, global_batch=2, act=act, warmup=0)
        Trainer(model, data, config, output=tmp_path / f"{act.mode}{act.every}").fit()
        assert model.offload is None
        assert (model.checkpointing, model.checkpoint_every) == (act.mode, act.every)
        weights.append(torch.cat([p.detach().view(-1) for p in model.parameters()]))
    assert torch.equal(weights[0], weights[2])
    # Other tiles of the loss: sums of the head's gradient in another order.
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_host_memory_holds_what_a_gpu_keeps() -> None:
    device = torch.device("cuda")
    store = make_store("cpu", device, None)
    assert store is not None
    ids, gradients, held = torch.arange(192, device=device).view(2, 96), [], []
    for offload in (None, ActivationOffload(store)):
        model = small_model(num_layers=12).to(device).train()
        model.checkpointing, model.offload = "full", offload
        model(ids).sum().backward()  # what libraries keep for good
        model.zero_grad()
        before = torch.cuda.memory_allocated()
        logits = model(ids)
        held.append(torch.cuda.memory_allocated() - before)
        logits.logsumexp(-1).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    of_a_block = 192 * 64 * 4
    assert held[0] - held[1] >= 10 * of_a_block  # the last block's stays, and one may be leaving
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradients[1][name], gradient)


def losses(folder: Path, act: ActConfig, parallel: ParallelConfig) -> list[float]:
    """Of three steps, the last after two updates."""
    model = small_model(num_layers=3)
    model.requires_grad_(True)
    found: list[float] = []

    class Losses:
        def on_start(self, trainer: Trainer) -> None:
            pass

        def on_step(self, trainer: Trainer, report: StepReport) -> None:
            found.append(report.loss)

    config = TrainConfig(
        steps=3, global_batch=4, micro_batch=2, act=act, parallel=parallel, warmup=0, lr=1e-2
    )
    Trainer(model, TokenDataset(folder, "train"), config, callbacks=[Losses()]).fit()
    return found


@pytest.mark.parametrize("mode", ["none", "full"])
def test_a_trainer_attends_in_chunks(tmp_path: Path, mode: Any) -> None:
    save_small_dataset(tmp_path)
    expected = losses(tmp_path, ActConfig(), ParallelConfig())
    for store in ("none", "nvme"):
        act = ActConfig(mode=mode, attention_chunk=30, attention_store=store)  # type: ignore[arg-type]
        found = losses(tmp_path, act, ParallelConfig())
        # Sums in float32, in another order.
        assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention_chunk": -1}, "attention_chunk=-1 must be 0 for none"),
        ({"attention_store": "nvme"}, "attention_chunk is 0. Give it a number of tokens"),
    ],
)
def test_chunks_of_attention_must_be_of_some_tokens(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ActConfig(**options)


def test_chunks_of_attention_do_not_go_round_a_ring() -> None:
    with pytest.raises(ConfigError, match=r"attention_chunk=8 needs parallel.ring=1, not 2"):
        TrainConfig(act=ActConfig(attention_chunk=8), parallel=ParallelConfig(ring=2))


def losses_on_ranks(folder: Path) -> list[list[float]]:
    acts = (
        ActConfig(mode="selective", tiled_mlp=40, offload="nvme"),
        ActConfig(mode="full", every=2, tiled_mlp=40),
        ActConfig(mode="full", attention_chunk=20, attention_store="nvme"),
    )
    layouts = ParallelConfig(sp=2, zero_stage=3), ParallelConfig(dp_shard=2, zero_stage=2)
    return [losses(folder, act, layout) for act in acts for layout in layouts]


@pytest.mark.slow
def test_ranks_with_shared_weights_train_the_same_with_all_savings(tmp_path: Path) -> None:
    save_small_dataset(tmp_path)
    expected = losses(tmp_path, ActConfig(), ParallelConfig())
    for found in distributed.run(losses_on_ranks, 2, tmp_path):
        for one in found:
            # Sums in float32, in another order.
            assert one == pytest.approx(expected, rel=2e-5)
