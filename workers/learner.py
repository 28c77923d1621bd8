"""The workers' only use of lamanas_core. Importing this module is cheap; calling it imports torch."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.settings import Settings
from app.store.clients import SyncStore
from app.store.errors import NotFound
from app.store.records import EpisodeRecord, ModelRecord, TrainingRecord
from workers.claims import StoppedError

if TYPE_CHECKING:
    from lamanas_core.adapt.adapted import Adapted
    from lamanas_core.meta_model import MetaModel
    from lamanas_core.train.loop import TrainingProgress

# The active one of each kind, and one of an older episode.
MODELS_KEPT = 3


class Learner:
    """Meta-models by version, on one device and with a fixed number of threads, since results depend on both."""

    def __init__(self, settings: Settings, store: SyncStore, threads: int) -> None:
        import torch

        from lamanas_core.devices import choose_device

        torch.set_num_threads(threads)
        self._adapt_batch = settings.adapt_batch
        self._store = store
        self._models: OrderedDict[str, MetaModel] = OrderedDict()
        try:
            self.device = choose_device(settings.device)
        except ValueError as error:
            raise RuntimeError(f"LAMANAS_DEVICE: {error}") from error

    def register_shipped(self) -> None:
        """Registers the models that are shipped with the package, one for each kind of images."""
        from lamanas_core.meta_model import MetaModel, shipped, shipped_kinds

        for kind in shipped_kinds():
            register(self._store, MetaModel.from_bytes(*shipped(kind)))

    def model(self, version: str) -> "MetaModel":
        """The model of this version, loaded if necessary, with its backbone. Raises NotFound, BackboneError."""
        from lamanas_core.meta_model import MetaModel

        if version not in self._models:
            record = self._record(version)
            weights = self._store.models.weights(version)
            opened = partial(MetaModel.from_bytes, weights, record.card)
            self._models[version] = self._store.backbones.provided_for(opened)
            while len(self._models) > MODELS_KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(version)
        return self._models[version]

    def _record(self, version: str) -> ModelRecord:
        """The stored record; the shipped model is registered again if Redis has lost it. Raises NotFound."""
        try:
            return self._store.models.get(version)
        except NotFound:
            self.register_shipped()
            return self._store.models.get(version)

    def adapt(
        self, record: EpisodeRecord, support: np.ndarray, labels: np.ndarray, on_step: Callable[[int, int, float], None]
    ) -> "Adapted":
        """Φ_K on one episode's support set; raises what ``lamanas_core.adapt.adapted.adapt`` raises."""
        from lamanas_core.adapt.adapted import adapt

        return adapt(
            self.model(record.model_version),
            support,
            labels,
            record.classes,
            steps=record.steps,
            seed=record.seed,
            device=self.device,
            on_step=on_step,
        )

    def most_together(self, record: EpisodeRecord) -> int:
        """How many episodes like this one to adapt in one batch: one without a GPU, where it would save no time."""
        from lamanas_core.adapt.together import can_adapt_together

        if self._adapt_batch == 1 or self.device == "cpu":
            return 1
        config = self.model(record.model_version).config
        return self._adapt_batch if can_adapt_together(config, sum(record.shots)) else 1

    def adapt_together(
        self,
        records: Sequence[EpisodeRecord],
        supports: Sequence[tuple[np.ndarray, np.ndarray]],
        on_step: Callable[[int, int, list[float]], None],
    ) -> Iterator["Adapted"]:
        """``adapt`` on each of several episodes of equal shape, in one batch; see ``adapt_together`` in
        lamanas_core.adapt.together, also for errors and ``on_step``."""
        from lamanas_core.adapt.together import SupportSet, adapt_together

        return adapt_together(
            self.model(records[0].model_version),
            [
                SupportSet(support, labels, record.classes, record.seed)
                for record, (support, labels) in zip(records, supports, strict=True)
            ],
            steps=records[0].steps,
            device=self.device,
            on_step=on_step,
        )

    def train(
        self,
        record: TrainingRecord,
        data: Path,
        run_dir: Path,
        on_progress: Callable[["TrainingProgress"], None],
        should_stop: Callable[[], bool],
    ) -> tuple[str, bytes, dict[str, Any]]:
        """Version, weights and card of the finished model. Resumes from the checkpoint in ``run_dir``; raises
        StoppedError once ``should_stop`` returns True."""
        from lamanas_core.config import TrainingConfig
        from lamanas_core.train.loop import TrainingStopped, train

        try:
            model = train(
                TrainingConfig.from_request(record.options),
                data,
                run_dir,
                device=self.device,
                on_progress=on_progress,
                should_stop=should_stop,
            )
        except TrainingStopped as error:
            raise StoppedError from error
        return model.version, model.to_bytes(), _card(model)


def register(store: SyncStore, model: "MetaModel") -> None:
    """Registers the model as a version that episodes can use. Does nothing if it is registered already."""
    store.models.register(model.version, model.to_bytes(), _card(model))


def _card(model: "MetaModel") -> dict[str, Any]:
    """The model's card with its unpruned architecture before any adaptation, which the app cannot compute without
    torch, and without the digests of the training classes: no part of the service uses these, and they may be many."""
    from lamanas_core.train.trained_classes import without_digests

    unpruned = model.learner.network.genotype(model.parameters.alpha, threshold=0.0)
    return without_digests(model.card) | {"architecture": unpruned.to_json()}
