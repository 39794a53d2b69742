import torch

from sharpen.optim import create
from sharpen.optim.stable_embedding import StableEmbedding


def test_rows_start_as_xaviers_and_come_out_normed() -> None:
    torch.manual_seed(0)
    layer = StableEmbedding(500, 30, padding_idx=3)
    bound = (6 / 530) ** 0.5
    assert 0.95 * bound < float(layer.weight.detach().max()) <= bound
    assert (layer.weight[3] == 0).all()
    out = layer(torch.tensor([[1, 2], [4, 3]]))
    expected = torch.nn.functional.layer_norm(layer.weight[[1, 2, 4, 3]], (30,)).view(2, 2, 30)
    torch.testing.assert_close(out, expected)


def test_the_norm_is_in_float32_and_the_output_in_the_type_of_the_weight() -> None:
    layer = StableEmbedding(10, 4, dtype=torch.bfloat16)
    assert layer.norm.weight.dtype == torch.float32
    assert layer(torch.tensor([1])).dtype == torch.bfloat16


def test_its_states_are_kept_in_32_bits() -> None:
    model = torch.nn.Sequential(StableEmbedding(100, 64), torch.nn.Linear(64, 128, bias=False))
    optimizer = create("adamw_8bit", model, lr=1e-3)
    model(torch.arange(5)).sum().backward()
    optimizer.step()
    embedding, linear = model[0].weight, model[1].weight
    assert optimizer.state[embedding]["exp_avg"].dtype == torch.float32
    assert optimizer.state[linear]["exp_avg_codes"].dtype == torch.uint8
