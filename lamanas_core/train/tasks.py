"""The tasks that a run trains on, each drawn from a seed of its own."""

from dataclasses import dataclass, replace

import torch

from lamanas_core.config import Config, TrainingConfig
from lamanas_core.data.augment import chance, random_affine, restyled
from lamanas_core.data.episodes import Episode, sample_episode, to_float
from lamanas_core.data.folders import ImageClasses
from lamanas_core.heads import make_head
from lamanas_core.recipe import Recipe


@dataclass(frozen=True)
class TaskSource:
    """Where a run's tasks come from: its options, the model's config, the recipe and the classes to draw from."""

    options: TrainingConfig
    config: Config
    recipe: Recipe
    classes: ImageClasses
    device: str

    def most_images(self) -> int:
        """About how many images a task has at most: fewer where each is larger, so that memory stays about the same."""
        tasks, network = self.recipe.tasks, self.config.network
        side = -(-network.image.size // network.stem_stride)
        fewest = 2 * sum(tasks.pairs[-1])
        return min(tasks.warm_up_images, max(tasks.warm_up_images * tasks.positions // side**2, fewest))

    def warm_up_task(self, seed: int) -> Episode:
        """As many classes as fit, images on both sides of the loss; some tasks lie within one alphabet."""
        tasks = self.recipe.tasks
        generator = torch.Generator().manual_seed(seed)
        shots, queries = tasks.pairs[int(torch.randint(len(tasks.pairs), (), generator=generator))]
        shots = min(shots, self.options.shots)
        ways = min(self.most_images() // (shots + queries), self.options.ways)
        within = chance(tasks.warm_up_within_group, generator)
        return self._drawn((ways, shots, queries), generator, within_group=within)

    def adaptation_task(self, seed: int) -> Episode:
        """5 to 20 classes, 1 to ``shots`` images each; half of the tasks lie within one alphabet, the harder case.

        In half of them every class has its own number of images, 1 to the task's, as clients bring them.

        7 of 10 are drawn (photos: taken) in another style than the data set's: in its own the network needs hardly any
        adaptation, and what adapts to nothing learns to stand still. Half of those have images that are bent twice, so
        that L_φ meets classes of which few images say little, and learns not to step far on those.
        A head for a fixed number of classes gets tasks of just so many, of ``shots`` images, from anywhere.
        """
        tasks, options = self.recipe.tasks, self.options
        generator = torch.Generator().manual_seed(seed)
        fixed = make_head(self.config.network).classes()
        if fixed is not None:
            return self._drawn((fixed, options.shots, options.shots), generator, within_group=False)
        ways = min(int(torch.randint(tasks.fewest_ways, tasks.most_ways + 1, (), generator=generator)), options.ways)
        shots = int(torch.randint(1, options.shots + 1, (), generator=generator))
        ways = max(2, min(ways, int(self.most_images() * tasks.adaptation_share) // shots))
        within = chance(tasks.adaptation_within_group, generator)
        uneven = chance(tasks.adaptation_uneven, generator)
        episode = self._drawn((ways, shots, tasks.queries), generator, within_group=within, uneven=uneven)
        return self._restyled(episode, generator) if chance(tasks.restyled, generator) else episode

    def _restyled(self, episode: Episode, generator: torch.Generator) -> Episode:
        spec, n = self.config.network.image, len(episode.support)
        images = torch.cat([episode.support, episode.queries])
        if chance(self.recipe.tasks.unsteady, generator):
            images = random_affine(images, spec, self.recipe.affine, generator)
        images = restyled(images.cpu(), spec, self.recipe.styles, generator).to(episode.support.device)
        return replace(episode, support=images[:n], queries=images[n:])

    def _drawn(
        self, shape: tuple[int, int, int], generator: torch.Generator, *, within_group: bool, uneven: bool = False
    ) -> Episode:
        """``shape``: ways, shots, queries. ``within_group``: of one alphabet, where there are alphabets, turned as a
        whole where rotations make classes."""
        ways, shots, queries = shape
        classes, rotations = self.classes, self.options.rotations
        within = within_group and any(classes.groups.count(group) > 1 for group in classes.groups)
        available = len(classes) * (4 if rotations else 1)
        episode = sample_episode(
            classes,
            min(ways, available),
            shots,
            queries,
            generator,
            rotations=rotations and not within,
            within_group=within,
            uneven=uneven,
        )
        turns = int(torch.randint(4, (), generator=generator)) if within and rotations else 0
        spec = self.config.network.image
        support, drawn = (
            random_affine(to_float(torch.rot90(part, turns, (2, 3))), spec, self.recipe.affine, generator)
            for part in (episode.support, episode.queries)
        )
        return Episode(
            support.to(self.device),
            episode.support_labels.to(self.device),
            drawn.to(self.device),
            episode.query_labels.to(self.device),
            episode.ways,
        )
