"""Training tasks, each sampled and augmented from its own seed."""

from dataclasses import dataclass, replace

import torch

from lamanas_core.config import Config, TrainingConfig
from lamanas_core.data.augment import chance, random_affine, restyled
from lamanas_core.data.episodes import Episode, sample_episode, to_float
from lamanas_core.data.folders import ImageClasses
from lamanas_core.heads.registry import make_head
from lamanas_core.recipe import Recipe


@dataclass(frozen=True)
class TaskSource:
    """Samples the tasks of a run from ``classes``, the training split.

    The images of its episodes are float in 0..1, on ``device``; for a network with a backbone, ``classes`` has inputs
    in several styles in place of images, and episodes have those of one style.
    """

    options: TrainingConfig
    config: Config
    recipe: Recipe
    classes: ImageClasses
    device: str

    def most_images(self) -> int:
        """The approximate maximum number of images of a warm-up task.

        It is smaller for larger feature maps, so that tasks need about the same memory.
        """
        tasks, network = self.recipe.tasks, self.config.network
        if network.backbone is not None:
            return tasks.warm_up_images
        side = -(-network.image.size // network.stem_stride)
        fewest = 2 * sum(tasks.pairs[-1])
        return min(tasks.warm_up_images, max(tasks.warm_up_images * tasks.positions // side**2, fewest))

    def warm_up_task(self, seed: int) -> Episode:
        """A warm-up task: as many classes as the maximum number of images allows, with a random number of shots and
        queries; some tasks are within one alphabet. See ``recipe.Tasks``.
        """
        tasks = self.recipe.tasks
        generator = torch.Generator().manual_seed(seed)
        shots, queries = tasks.pairs[int(torch.randint(len(tasks.pairs), (), generator=generator))]
        shots = min(shots, self.options.shots)
        ways = min(self.most_images() // (shots + queries), self.options.most_ways)
        within = chance(tasks.warm_up_within_group, generator)
        return self._sampled((ways, shots, queries), generator, within_group=within)

    def adaptation_task(self, seed: int) -> Episode:
        """A meta-training task; see ``recipe.Tasks`` for its distribution.

        Some tasks are within one alphabet, which is harder. In some, classes have different numbers of shots, as in
        users' support sets. Most are restyled: in the data set's own style the warmed-up network hardly needs
        adaptation, so that the task learner would learn not to adapt. Some of these are also distorted twice, so that
        L_φ learns to take small steps on classes whose few images are not representative.

        A head with a fixed number of classes gets tasks with exactly that many classes, from any alphabets, and as many
        shots and queries as ``TrainingConfig.shots``, in the data set's own style.
        """
        tasks, options = self.recipe.tasks, self.options
        generator = torch.Generator().manual_seed(seed)
        fixed_ways = make_head(self.config.network).classes()
        if fixed_ways is not None:
            return self._sampled((fixed_ways, options.shots, options.shots), generator, within_group=False)
        ways = int(torch.randint(tasks.fewest_ways, tasks.most_ways + 1, (), generator=generator))
        ways = min(ways, options.most_ways)
        shots = int(torch.randint(1, options.shots + 1, (), generator=generator))
        ways = max(2, min(ways, int(self.most_images() * tasks.adaptation_share) // shots))
        within = chance(tasks.adaptation_within_group, generator)
        uneven = chance(tasks.adaptation_uneven, generator)
        episode = self._sampled((ways, shots, tasks.queries), generator, within_group=within, uneven=uneven)
        restyle = chance(tasks.restyled, generator)
        if self.config.network.backbone is not None:
            return self._in_style(episode, restyle, generator)
        return self._restyled(episode, generator) if restyle else episode

    def _in_style(self, episode: Episode, restyle: bool, generator: torch.Generator) -> Episode:
        """The inputs of the network, float (n, m), in one of the styles that were computed; see ``in_styles``."""
        styles = episode.support.shape[1]
        style = int(torch.randint(1, styles, (), generator=generator)) if restyle and styles > 1 else 0
        support, queries = (part[:, style].float() for part in (episode.support, episode.queries))
        return replace(episode, support=support, queries=queries)

    def _restyled(self, episode: Episode, generator: torch.Generator) -> Episode:
        spec, n = self.config.network.image, len(episode.support)
        images = torch.cat([episode.support, episode.queries])
        if chance(self.recipe.tasks.unsteady, generator):
            images = random_affine(images, spec, self.recipe.affine, generator)
        images = restyled(images.cpu(), spec, self.recipe.styles, generator).to(episode.support.device)
        return replace(episode, support=images[:n], queries=images[n:])

    def _sampled(
        self, shape: tuple[int, int, int], generator: torch.Generator, *, within_group: bool, uneven: bool = False
    ) -> Episode:
        """An episode, with random affine transformations unless it has maps. ``shape``: ways, shots, queries per class.

        ``within_group``: all classes are from one alphabet, if the data has alphabets, and fewer than ``ways`` if it
        has fewer; with ``rotations`` the whole episode is then rotated, instead of rotations counting as classes.
        """
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
            fewer_ways=True,
            uneven=uneven,
        )
        turns = int(torch.randint(4, (), generator=generator)) if within and rotations else 0
        spec = self.config.network.image
        support, query = episode.support, episode.queries
        if self.config.network.backbone is None:
            support, query = (
                random_affine(to_float(torch.rot90(part, turns, (2, 3))), spec, self.recipe.affine, generator)
                for part in (support, query)
            )
        return Episode(
            support.to(self.device),
            episode.support_labels.to(self.device),
            query.to(self.device),
            episode.query_labels.to(self.device),
            episode.ways,
        )
