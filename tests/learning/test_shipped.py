"""The shipped meta-model tells test characters of Omniglot apart as well as the documentation says."""

from pathlib import Path

from lamanas_core.data.folders import load_dataset
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.meta_model import MetaModel, shipped


def test_at_least_98_percent_of_the_queries_of_20_test_characters_are_classified_correctly(omniglot: Path) -> None:
    model = MetaModel.from_bytes(*shipped())
    characters = load_dataset(omniglot, model.config.network.image)["test"]
    # 99.1 % over 600 episodes: 98 % is four standard errors of the mean over 20 below it.
    asked = EvaluationConfig(ways=20, shots=5, queries=5, episodes=20)
    assert evaluate(model, characters, asked, lambda number: None).accuracy >= 0.98
