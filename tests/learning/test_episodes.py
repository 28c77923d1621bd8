"""Sampled episodes: distinct classes and images, and even or uneven support sets as requested."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamanas_core.data.episodes import Episode, sample_episode
from lamanas_core.data.folders import ImageClasses

CLASSES, IMAGES = 8, 6


def numbered() -> ImageClasses:
    """8 classes of 6 images, half of them in one alphabet; every pixel of an image has the image's number."""
    numbers = torch.arange(CLASSES * IMAGES, dtype=torch.uint8)
    images = numbers[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    members = tuple(torch.arange(i * IMAGES, (i + 1) * IMAGES) for i in range(CLASSES))
    groups = tuple("first" if i < CLASSES // 2 else "second" for i in range(CLASSES))
    return ImageClasses(images, members, tuple(f"class {i}" for i in range(CLASSES)), groups)


def sampled(seed: int, ways: int, shots: int, **options: bool) -> Episode:
    return sample_episode(numbered(), ways, shots, 2, torch.Generator().manual_seed(seed), **options)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31 - 1), st.integers(1, CLASSES), st.integers(1, IMAGES - 1), st.booleans())
def test_no_image_occurs_twice_and_each_has_its_label(seed: int, ways: int, shots: int, uneven: bool) -> None:
    episode = sampled(seed, ways, shots, uneven=uneven)
    numbers = torch.cat([episode.support, episode.queries])[:, 0, 0, 0].long()
    labels = torch.cat([episode.support_labels, episode.query_labels])
    assert len(set(numbers.tolist())) == len(numbers)
    assert len(set(episode.classes)) == ways == episode.ways
    assert torch.equal(torch.tensor(episode.classes)[labels], numbers // IMAGES)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31 - 1), st.integers(1, IMAGES - 1))
def test_an_even_support_set_has_the_same_number_of_shots_in_each_class(seed: int, shots: int) -> None:
    counts = torch.bincount(sampled(seed, CLASSES, shots).support_labels)
    assert counts.tolist() == [shots] * CLASSES


def test_an_uneven_support_set_has_any_number_of_shots_up_to_the_maximum() -> None:
    seen = {int(n) for seed in range(20) for n in torch.bincount(sampled(seed, CLASSES, 4, uneven=True).support_labels)}
    assert seen == {1, 2, 3, 4}


def test_rotated_classes_are_classes_of_their_own() -> None:
    turned = sampled(0, 4 * CLASSES, 1, rotations=True)
    assert sorted(turned.classes) == sorted(4 * list(range(CLASSES)))


def test_a_task_within_an_alphabet_has_only_its_classes() -> None:
    for seed in range(10):
        assert len({numbered().groups[i] for i in sampled(seed, 3, 1, within_group=True).classes}) == 1


def in_unequal_alphabets() -> ImageClasses:
    """The first three of the 8 classes are in one alphabet, the others in another."""
    return replace(numbered(), groups=("small",) * 3 + ("large",) * 5)


def test_a_task_within_an_alphabet_has_all_ways_unless_fewer_are_allowed() -> None:
    def ways(seed: int, wanted: int, **options: bool) -> int:
        source = torch.Generator().manual_seed(seed)
        return sample_episode(in_unequal_alphabets(), wanted, 1, 2, source, within_group=True, **options).ways

    assert {ways(seed, 4) for seed in range(20)} == {4}
    assert {ways(seed, 4, fewer_ways=True) for seed in range(20)} == {3, 4}
    assert ways(0, 9, rotations=True) == 9
    with pytest.raises(ValueError, match="6 ways within one alphabet; the largest has 5 classes"):
        ways(0, 6)


def test_alphabets_with_exactly_as_many_classes_are_used() -> None:
    source = torch.Generator().manual_seed(0)
    episodes = [sample_episode(in_unequal_alphabets(), 3, 1, 2, source, within_group=True) for _ in range(20)]
    assert {max(episode.classes) < 3 for episode in episodes} == {True, False}


def test_a_class_with_few_images_keeps_one_as_a_query() -> None:
    episode = sampled(0, CLASSES, 2 * IMAGES)
    assert torch.bincount(episode.support_labels).tolist() == [IMAGES - 1] * CLASSES
    assert torch.bincount(episode.query_labels).tolist() == [1] * CLASSES
