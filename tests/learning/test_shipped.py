"""The shipped meta-model classifies Omniglot's test characters as accurately as documented."""

from pathlib import Path

from lamanas_core.data.folders import load_dataset
from lamanas_core.measure.evaluate import EvaluationConfig, evaluate
from lamanas_core.meta_model import MetaModel, shipped


def test_at_least_98_percent_of_the_queries_of_20_test_characters_are_classified_correctly(omniglot: Path) -> None:
    model = MetaModel.from_bytes(*shipped())
    characters = load_dataset(omniglot, model.config.network.image)["test"]
    # The accuracy over 600 episodes is 99.1 %; 98 % is four standard errors (of 20 episodes) lower.
    config = EvaluationConfig(ways=20, shots=5, queries=5, episodes=20)
    assert evaluate(model, characters, config, lambda number: None).accuracy >= 0.98
