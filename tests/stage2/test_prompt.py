from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ltprompt.stage2.prompt import PromptEncoder, insert
from ltprompt.stage2.readout import fold

CPU = torch.device("cpu")


def seeded(seed: int, length: int = 4, width: int = 6, dtype: torch.dtype = torch.float64) -> PromptEncoder:
    return PromptEncoder.seeded(length, width, seed, device=CPU, dtype=dtype)


def one_direction(vectors: Tensor, state: dict[str, Tensor], suffix: str) -> list[Tensor]:
    """An LSTM written out, cell by cell."""
    w_in, w_hidden = state[f"lstm.weight_ih_l0{suffix}"], state[f"lstm.weight_hh_l0{suffix}"]
    bias = state[f"lstm.bias_ih_l0{suffix}"] + state[f"lstm.bias_hh_l0{suffix}"]
    hidden = cell = torch.zeros(vectors.shape[1], dtype=vectors.dtype)
    found = []
    for vector in vectors:
        gate_in, forget, new, out = (w_in @ vector + w_hidden @ hidden + bias).chunk(4)
        cell = forget.sigmoid() * cell + gate_in.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        found.append(hidden)
    return found


def test_the_prompt_is_a_bilstm_and_an_mlp_over_its_vectors() -> None:
    encoder = seeded(1)
    state = encoder.state_dict()
    vectors = state["vectors.weight"]
    forth = one_direction(vectors, state, "")
    back = one_direction(vectors.flip(0), state, "_reverse")[::-1]
    expected = []
    for pair in zip(forth, back, strict=True):
        middle = (state["mlp.0.weight"] @ torch.cat(pair) + state["mlp.0.bias"]).clamp_min(0)
        expected.append(state["mlp.2.weight"] @ middle + state["mlp.2.bias"])
    torch.testing.assert_close(encoder().detach(), torch.stack(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("length", "width"), [(1, 4), (4, 16), (7, 6)])
def test_shape_and_sizes(length: int, width: int) -> None:
    encoder = seeded(0, length, width)
    assert encoder().shape == (length, width)
    shapes = {name: tuple(parameter.shape) for name, parameter in encoder.named_parameters()}
    assert shapes["vectors.weight"] == (length, width)
    assert shapes["lstm.weight_hh_l0"] == shapes["lstm.weight_hh_l0_reverse"] == (4 * width, width)
    assert (shapes["mlp.0.weight"], shapes["mlp.2.weight"]) == ((width, 2 * width), (width, width))


def test_the_seed_alone_decides_the_start() -> None:
    torch.manual_seed(123)
    first = seeded(5).state_dict()
    torch.manual_seed(456)
    second, other = seeded(5).state_dict(), seeded(6).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert not torch.equal(tensor, other[name]), name


def test_layers_start_as_pytorch_initialises_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layers = [torch.nn.Embedding(4, 6), torch.nn.LSTM(6, 6, bidirectional=True)]
        layers += [torch.nn.Linear(12, 6), torch.nn.Linear(6, 6)]
    expected = [parameter for layer in layers for parameter in layer.parameters()]
    for found, value in zip(seeded(5, dtype=torch.float32).parameters(), expected, strict=True):
        assert torch.equal(found, value)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    seeded(5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_folded_prompt_is_the_forward_without_gradient() -> None:
    encoder = seeded(2, dtype=torch.float32)
    folded = fold(encoder)
    torch.testing.assert_close(folded, encoder().detach(), rtol=0, atol=1e-6)
    assert torch.equal(folded, fold(encoder))
    assert folded.dtype == torch.float32
    assert not folded.requires_grad


def test_prompt_vectors_stand_where_the_ids_ask_for_them() -> None:
    ids = torch.tensor([[5, -1, -3, -2], [-2, 0, 7, -1]])
    embeddings, prompt = torch.randn(2, 4, 6), torch.randn(3, 6)
    found = insert(embeddings, ids, prompt)
    for row in range(2):
        for column, id_ in enumerate(ids[row].tolist()):
            expected = embeddings[row, column] if id_ >= 0 else prompt[-id_ - 1]
            assert torch.equal(found[row, column], expected)


def test_gradients_reach_prompt_and_words_at_their_places_only() -> None:
    ids = torch.tensor([[5, -1, -1], [-2, 0, 7]])
    embeddings = torch.randn(2, 3, 6, requires_grad=True)
    prompt = torch.randn(3, 6, requires_grad=True)
    insert(embeddings, ids, prompt).sum().backward()
    assert torch.equal(embeddings.grad[..., 0], (ids >= 0).float())
    assert prompt.grad[:, 0].tolist() == [2, 1, 0]


def test_without_a_prompt_the_words_stand_alone() -> None:
    embeddings = torch.randn(2, 3, 6)
    assert insert(embeddings, torch.tensor([[1, 2, 3], [4, 5, 6]]), None) is embeddings


def test_the_prompt_takes_the_precision_of_the_words() -> None:
    found = insert(torch.zeros(1, 2, 6, dtype=torch.float64), torch.tensor([[-1, 3]]), torch.ones(1, 6))
    assert found.dtype == torch.float64
    assert found[0, :, 0].tolist() == [1, 0]
