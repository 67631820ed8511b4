"""The grid form equals the expanded pairs: outputs, gradients, batch statistics; shapes follow the inputs."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from methyl_lightning.networks import Constant, CpgFeatures, LevyJurgenson, SequenceOnly
from methyl_lightning.networks.contract import MethylationNetwork
from methyl_lightning.networks.levy_jurgenson import distinct_rows

N_CPGS, N_SAMPLES, N_GENES, WINDOW = 5, 7, 31, 64


def features(seed: int = 0, n_cpgs: int = N_CPGS) -> tuple[CpgFeatures, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 5, (n_cpgs,), generator=generator)
    counts[0] = 0  # a CpG without any gene
    n_entries = int(counts.sum())
    cpgs = CpgFeatures(
        sequence_CL=torch.randint(0, 5, (n_cpgs, WINDOW), generator=generator, dtype=torch.uint8),
        gene_N=torch.randint(0, N_GENES, (n_entries,), generator=generator),
        bp_N=torch.randint(-30_000, 30_000, (n_entries,), generator=generator),
        offset_C=torch.cumsum(counts, 0) - counts,
        key_C=torch.arange(n_cpgs),
        chrom_C=torch.zeros(n_cpgs, dtype=torch.int64),
        position_C=1_000 * torch.arange(n_cpgs),
        annotation_CP=torch.full((n_cpgs, 19), torch.nan),
    )
    return cpgs, torch.rand(N_SAMPLES, N_GENES, generator=generator, dtype=torch.float64) * 90 + 10


def bucket_weight(bp: int, variant: int | str) -> float:
    sign = -1.0 if bp < 0 else 1.0
    if variant == 1:
        return sign if abs(bp) <= 2000 else 0.0
    return sign * 0.5 ** (abs(bp) // 2000) if abs(bp) < 20_000 else 0.0


class NaivePairs(nn.Module):
    """The published network on expanded pairs, from plain layers, sharing the parameters of the one under test."""

    def __init__(self, network: LevyJurgenson, variant: int | str):
        super().__init__()
        self.network, self.variant = network, variant
        self.statistics = {
            name: (torch.zeros_like(layer.running_mean), torch.ones_like(layer.running_var))
            for name, layer in network.named_modules()
            if isinstance(layer, nn.BatchNorm1d)
        }

    def norm(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        layer = self.network.get_submodule(name)
        return functional.batch_norm(rows, *self.statistics[name], layer.weight, layer.bias, True, layer.momentum)

    def convolution(self, name: str, sequence: torch.Tensor) -> torch.Tensor:
        one_hot = functional.one_hot(sequence.long(), 5).double().transpose(1, 2)
        layer = self.network.get_submodule(f"{name}.convolution")
        padded = functional.pad(one_hot, (5, 5))
        hidden = functional.elu(self.norm(f"{name}.normalisation", functional.conv1d(padded, layer.weight, layer.bias)))
        return functional.avg_pool1d(hidden, 10, 10).flatten(1)

    def attention(self, name: str, first: torch.Tensor) -> torch.Tensor:
        elu = functional.elu if self.variant != 1 else (lambda rows: rows)
        index = iter(range(10))
        rest = f"{name}.rest"
        hidden = elu(self.norm(f"{rest}.{next(index)}", first))
        if self.variant != 1:
            next(index)
        second = self.network.get_submodule(f"{rest}.{next(index)}")
        return torch.softmax(elu(self.norm(f"{rest}.{next(index)}", second(hidden))), -1)

    def forward(self, sequence: torch.Tensor, distance: torch.Tensor, expression: torch.Tensor) -> torch.Tensor:
        motif = self.convolution("motif.0", sequence)
        for i in (1, 2, 3):
            motif = functional.elu(self.norm(f"motif.{i}.1", self.network.get_submodule(f"motif.{i}.0")(motif)))
        sparse = self.network.distance_attention.first
        parts = [
            motif,
            expression * self.attention("distance_attention", distance @ sparse.weight_GH + sparse.bias_H),
        ]
        if self.variant != 1:
            first = self.network.expression_attention.first(expression)
            parts.append(expression * self.attention("expression_attention", first))
            convolved = self.convolution("sequence_attention.first.0", sequence)
            first = self.network.sequence_attention.first[1](convolved)
            parts.append(expression * self.attention("sequence_attention", first))
        rows = self.network.connected(torch.cat(parts, 1))
        rows = functional.elu(self.norm("connected_normalisation", rows))
        for i in (0, 1):
            rows = functional.elu(self.norm(f"head.{i}.normalisation", self.network.head[i].linear(rows)))
        return self.network.output(rows).squeeze(1)


def naive(network: LevyJurgenson, variant: int | str, cpgs: CpgFeatures, expression: torch.Tensor, index: list):
    """Expand the pairs (c, s) of ``index`` and run the naive network; return predictions and statistics."""
    bounds = [*cpgs.offset_C.tolist(), len(cpgs.gene_N)]
    distance = torch.zeros(len(cpgs.offset_C), N_GENES, dtype=torch.float64)
    for c in range(len(cpgs.offset_C)):
        for entry in range(bounds[c], bounds[c + 1]):
            distance[c, cpgs.gene_N[entry]] += bucket_weight(int(cpgs.bp_N[entry]), variant)
    pairs = NaivePairs(network, variant)
    c, s = (torch.tensor(part) for part in zip(*index, strict=True))
    return pairs(cpgs.sequence_CL[c], distance[c], expression[s]), pairs.statistics


def assert_same_training_step(network, predict, expected_of, target: torch.Tensor) -> None:
    network.train()
    expected, statistics = expected_of()
    functional.l1_loss(expected, target).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    actual = predict()
    functional.l1_loss(actual, target).backward()
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10, msg=name)
    assert statistics
    for name, (mean, variance) in statistics.items():
        layer = network.get_submodule(name)
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-10, atol=1e-10, msg=name)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("variant", [1, 2, 3, "port1"])
def test_grid_equals_expanded_pairs(variant, monkeypatch):
    # several CpGs a tile and a ragged last tile
    monkeypatch.setattr("methyl_lightning.networks.products.TILE_BYTES", 2 * 50 * 8 * 8)
    monkeypatch.setattr("methyl_lightning.networks.products.TILE_GENES", 8)
    torch.manual_seed(1)
    network = LevyJurgenson(N_GENES, WINDOW, variant).double()
    cpgs, expression = features()
    index = [(c, s) for c in range(N_CPGS) for s in range(N_SAMPLES)]
    assert_same_training_step(
        network,
        lambda: network(cpgs, expression).flatten(),
        lambda: naive(network, variant, cpgs, expression, index),
        torch.rand(len(index), dtype=torch.float64),
    )


@pytest.mark.parametrize("variant", [1, 3])
def test_pairs_equal_expanded_pairs(variant):
    torch.manual_seed(2)
    network = LevyJurgenson(N_GENES, WINDOW, variant).double()
    cpgs, expression = features(n_cpgs=N_SAMPLES)
    assert_same_training_step(
        network,
        lambda: network.forward_pairs(cpgs, expression),
        lambda: naive(network, variant, cpgs, expression, [(n, n) for n in range(N_SAMPLES)]),
        torch.rand(N_SAMPLES, dtype=torch.float64),
    )


BLOCKS = {"sequence": 0, "distance_attention": 1, "expression_attention": 2, "sequence_attention": 3}


@pytest.mark.parametrize("without", [["sequence"], ["distance_attention"], ["expression_attention"], [*BLOCKS][::3]])
def test_an_ablated_network_is_the_whole_one_with_its_part_unplugged(without: list[str]):
    torch.manual_seed(5)
    whole = LevyJurgenson(N_GENES, WINDOW).double()
    ablated = LevyJurgenson(N_GENES, WINDOW, without=without).double()
    state = whole.state_dict()
    blocks = state["connected.weight"].split(whole.widths, 1)
    for name in without:
        blocks[BLOCKS[name]].zero_()
    kept = [blocks[i] for name, i in BLOCKS.items() if name not in without]
    missing = ablated.load_state_dict(state | {"connected.weight": torch.cat(kept, 1)}, strict=False)
    left_out = tuple("motif" if name == "sequence" else name for name in without)
    assert not missing.missing_keys and all(name.startswith(left_out) for name in missing.unexpected_keys)
    cpgs, expression = features(n_cpgs=N_SAMPLES)
    for train in (True, False):
        torch.testing.assert_close(ablated.train(train)(cpgs, expression), whole.train(train)(cpgs, expression))
        pairs = [network.forward_pairs(cpgs, expression) for network in (ablated, whole)]
        torch.testing.assert_close(*pairs)
    ablated(cpgs, expression).sum().backward()
    assert all(parameter.grad is not None for parameter in ablated.parameters())


def test_without_expression_samples_are_alike():
    torch.manual_seed(6)
    cpgs, expression = features()
    network = LevyJurgenson(N_GENES, WINDOW, without=["expression"]).double().eval()
    assert network.expression_attention is None
    predicted = network(cpgs, expression)
    torch.testing.assert_close(predicted, predicted[:, :1].expand_as(predicted))
    assert predicted[:, 0].std() > 1e-6
    # the sequence alone: neither genes nor samples are looked at
    without = ["expression", "distance_attention", "sequence_attention"]
    assert LevyJurgenson(N_GENES, WINDOW, without=without).double().eval()(cpgs, expression).shape == predicted.shape


def test_expression_has_a_gradient_when_asked():
    torch.manual_seed(3)
    network = LevyJurgenson(N_GENES, WINDOW).double().eval()
    cpgs, expression = features()
    encoding = network.encode_cpgs(cpgs)
    assert torch.autograd.gradcheck(
        lambda rows: network.combine(encoding, network.encode_samples(rows)), expression[:2].requires_grad_()
    )


def test_equal_rows_are_taken_together():
    rows = [([3, 5], [1.0, -0.5]), ([], []), ([3], [1.0]), ([3, 5], [1.0, -0.5]), ([], []), ([3, 5], [1.0, 0.5])]
    index = torch.tensor([column for columns, _ in rows for column in columns])
    value = torch.tensor([one for _, values in rows for one in values])
    offset = torch.tensor([0, *(len(columns) for columns, _ in rows[:-1])]).cumsum(0)
    (distinct_index, distinct_offset, distinct_value), row = distinct_rows(index, offset, value)
    assert len(distinct_offset) == 4 and row[0] == row[3] and row[1] == row[4]
    ends = [*distinct_offset.tolist()[1:], len(distinct_index)]
    for (columns, values), which in zip(rows, row.tolist(), strict=True):
        entries = slice(int(distinct_offset[which]), ends[which])
        assert distinct_index[entries].tolist() == columns and distinct_value[entries].tolist() == values
    nothing = distinct_rows(index[:0], torch.zeros(3, dtype=torch.int64), value[:0])
    assert len(nothing[0][1]) == 1 and nothing[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("build", [partial(LevyJurgenson, N_GENES, WINDOW), Constant, partial(SequenceOnly, WINDOW)])
def test_cells_do_not_depend_on_their_neighbours_in_evaluation(build: Callable[[], MethylationNetwork]):
    torch.manual_seed(4)
    network = build().double().eval()
    cpgs, expression = features()
    with torch.no_grad():
        grid = network(cpgs, expression)
        assert grid.shape == (N_CPGS, N_SAMPLES)
        samples = network.encode_samples(expression)
        encoded = network.encode_cpgs(cpgs)
        column = network.combine(encoded, type(samples)(*(part[3:4] for part in samples)))
        pairs = network.combine_pairs(
            type(encoded)(*(part[[0, 2, 4]] for part in encoded)), type(samples)(*(part[[1, 0, 6]] for part in samples))
        )
    torch.testing.assert_close(grid[:, 3:4], column)
    torch.testing.assert_close(pairs, grid[[0, 2, 4], [1, 0, 6]])


@pytest.mark.parametrize("build", [partial(LevyJurgenson, N_GENES, WINDOW), partial(SequenceOnly, WINDOW)])
def test_cpgs_without_a_sequence_stand_apart(build: Callable[[], MethylationNetwork]):
    torch.manual_seed(5)
    network = build().double()
    cpgs, expression = features()
    known = cpgs._replace(sequence_CL=cpgs.sequence_CL.clone())
    known.sequence_CL[[1, 3]] = 4
    # the others' batch statistics and predictions are those of a block without them
    network.train()
    encoded = network.encode_cpgs(known)[0]
    torch.testing.assert_close(encoded[[0, 2, 4]], network.encode_cpgs(rows(known, [0, 2, 4]))[0])
    assert torch.equal(encoded[1], encoded[3])
    # a cohort without any sequence trains and is evaluated with finite, moderate values
    blank = cpgs._replace(sequence_CL=torch.full_like(cpgs.sequence_CL, 4))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(30):
        optimiser.zero_grad()
        (network(blank, expression) - 0.5).abs().mean().backward()
        optimiser.step()
    network.eval()
    assert (network(blank, expression) - 0.5).abs().max() < 5


def rows(cpgs: CpgFeatures, index: list[int]) -> CpgFeatures:
    """Take some CpGs, without their genes: only the sequence branches are looked at."""
    none = torch.zeros(0, dtype=torch.long)
    return cpgs._replace(
        sequence_CL=cpgs.sequence_CL[index],
        gene_N=none,
        bp_N=none,
        offset_C=torch.zeros(len(index), dtype=torch.long),
        key_C=cpgs.key_C[index],
    )


def test_sizes_follow_window_and_genes():
    network = LevyJurgenson(n_genes=60, window=122)
    assert network.motif[0].n_out == 64 * 12
    assert network.connected.in_features == 40 + 3 * 60
    assert network.distance_attention.rest[2].in_features == 10
    assert LevyJurgenson(60, 122, 1).distance_attention.rest[1].in_features == 30
    assert [LevyJurgenson(60, 122, v).gene_within_bp for v in (1, 2, 3, "port1")] == [2000, 10000, None, 2000]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="variant=4: must be one of"):
        LevyJurgenson(N_GENES, WINDOW, 4)
    with pytest.raises(ValueError, match=r"without=\['genes'\]: must be some of"):
        LevyJurgenson(N_GENES, WINDOW, without=["genes"])
    with pytest.raises(ValueError, match="leaves nothing to predict from"):
        LevyJurgenson(N_GENES, WINDOW, 1, ["sequence", "distance_attention"])
    with pytest.raises(ValueError, match="window=8: must be at least 10"):
        SequenceOnly(8)
