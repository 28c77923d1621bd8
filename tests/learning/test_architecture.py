"""Shares, inputs, pruning and genotype against small cases calculated by hand."""

import math
from dataclasses import replace

import pytest
import torch

from lamanas_core.config import NetworkConfig
from lamanas_core.meta.warm_up import size, temperature
from lamanas_core.recipe import WarmUp
from lamanas_core.search.alpha import cell_weights, edges, genotype, initial_alpha, pairs, shares
from lamanas_core.search.mixing import CellWeights, Mixing
from lamanas_core.search.supernet import CellNetwork

RECIPE = WarmUp()
CONFIG = NetworkConfig(nodes=2, channels=4, operations=("skip", "conv_3x3"), cells=("normal",), prune_threshold=0.05)


def test_inputs_are_chosen_in_pairs() -> None:
    assert pairs(0) == [(0, 1)]
    assert pairs(1) == [(0, 1), (0, 2), (1, 2)]
    assert edges(2) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_shares_by_hand() -> None:
    alpha = initial_alpha(CONFIG)
    alpha["normal.operations"][0] = torch.tensor([0.0, math.log(3.0)])
    alpha["normal.pairs.1"] = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    operations, inputs = shares(alpha, "normal", 2, temperature=1.0)
    torch.testing.assert_close(operations[0], torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(inputs, torch.tensor([1.0, 1.0, 0.8, 0.7, 0.5]))
    sharp, _ = shares(alpha, "normal", 2, temperature=0.5)
    torch.testing.assert_close(sharp[0], torch.tensor([0.1, 0.9]))


def test_operations_below_the_threshold_are_dropped_and_the_genotype_lists_the_others() -> None:
    alpha = initial_alpha(CONFIG)
    alpha["normal.operations"][0] = torch.tensor([0.0, 9.0])
    alpha["normal.pairs.1"] = torch.tensor([9.0, 0.0, 0.0])
    kept = cell_weights(alpha, CONFIG, Mixing(1.0, 0.05)).kinds["normal"].kept
    assert kept == ((1,), (0, 1), (0, 1), (0, 1), ())
    sharp = NetworkConfig(
        nodes=2, channels=4, operations=("skip", "conv_3x3"), cells=("normal",), prune_threshold=0.05, temperature=1.0
    )
    nodes = genotype(alpha, sharp, sharp.prune_threshold).normal
    assert [operation.name for operation in nodes[0][0].operations] == ["conv_3x3"]
    assert [edge.source for edge in nodes[1]] == ["input0", "input1"]


def pruned(alpha: dict[str, torch.Tensor]) -> CellWeights:
    return cell_weights(alpha, CONFIG, Mixing(CONFIG.temperature, CONFIG.prune_threshold))


def test_parameters_kept_by_hand() -> None:
    alpha = initial_alpha(CONFIG)
    network = CellNetwork(CONFIG)
    total = sum(value.numel() for value in network.initial_theta(torch.Generator()).values())
    assert network.kept_cost(pruned(alpha)) == total
    alpha["normal.operations"][0] = torch.tensor([9.0, 0.0])
    # Without one 3 x 3 convolution with 4 channels and its normalisation.
    assert network.kept_cost(pruned(alpha)) == total - (4 * 4 * 9 + 8)
    # Node 1 without its third input: without the convolution on that edge as well, although its share there is 0.5.
    alpha["normal.pairs.1"] = torch.tensor([9.0, 0.0, 0.0])
    assert network.kept_cost(pruned(alpha)) == total - 2 * (4 * 4 * 9 + 8)


def test_the_temperature_falls_to_its_final_value_and_stays_there() -> None:
    assert temperature(0.0, RECIPE) == 1.0
    assert temperature(RECIPE.annealed_by, RECIPE) == pytest.approx(0.05)
    assert temperature(1.0, RECIPE) == pytest.approx(0.05)
    assert temperature(RECIPE.annealed_by / 2, RECIPE) == pytest.approx(math.sqrt(0.05))


def test_the_size_by_hand_counts_one_whole_operation_less_than_two_halves() -> None:
    alpha = initial_alpha(CONFIG)
    network = CellNetwork(CONFIG)
    theta = network.initial_theta(torch.Generator())
    always = sum(value.numel() for name, value in theta.items() if "edges" not in name)
    convolution = 4 * 4 * 9 + 8
    for name in ("normal.operations", "reduction.operations"):
        alpha[name][:, 1] = 90.0
    alpha["normal.pairs.1"][0] = 90.0
    whole = size(network, cell_weights(alpha, CONFIG, Mixing(1.0, 0.01)), RECIPE)
    # The convolution on four of the five edges, relative to both operations on all five.
    expected = (always + 4 * (convolution + RECIPE.pass_cost)) / (always + 5 * (convolution + 2 * RECIPE.pass_cost))
    assert float(whole) == pytest.approx(expected)
    alpha["normal.operations"][0] = 0.0
    halves = size(network, cell_weights(alpha, CONFIG, Mixing(1.0, 0.01)), RECIPE)
    assert halves > whole


def test_paths_are_dropped_only_with_a_seed() -> None:
    config = replace(CONFIG, drop_path=0.5)
    alpha = initial_alpha(config)

    def kept(dropped: int | None) -> set[tuple[int, ...]]:
        weights = cell_weights(alpha, config, Mixing(1.0, 0.0, dropped))
        return {operations for kind in weights.kinds.values() for operations in kind.kept}

    everything = tuple(range(len(config.operations)))
    assert all(kept(None) == {everything} for _ in range(10))
    assert len(kept(0)) > 1
