"""Which modules get faults, and which tests belong to each: the two tables to edit when files move."""

from collections.abc import Iterable, Mapping
from pathlib import Path

# The key of the tests that belong to every module, after those of its own row.
EVERY_MODULE = "*"
ROOT = Path(__file__).resolve().parent.parent.parent

# The sample has of each area in proportion to its number of places. Globs are relative to the root.
AREAS: Mapping[str, tuple[str, ...]] = {
    "lamanas_core": (
        "lamanas_core/[!_]*.py",
        *(
            f"lamanas_core/{part}/**/*.py"
            for part in ("adapt", "backbones", "data", "heads", "losses", "measure", "meta", "search", "train")
        ),
    ),
    "app": ("app/store/**/*.py", "app/images/**/*.py", "app/inference/**/*.py", "app/queue.py"),
    "workers": ("workers/**/*.py",),
}

# The longest prefix of a module's path decides. The tests of a row run in its order, up to the first failure: the most
# specific and fastest first. One string a row: names of files under ``tests/``, without ``test_`` and ``.py``.
TABLE: Mapping[str, str] = {
    EVERY_MODULE: "conventions",
    "app/images/": "app/parsing app/unlabelled app/bad_input app/support app/episodes app/predict",
    "app/images/archive.py": "app/archives app/parsing app/unlabelled app/bad_input app/episodes",
    "app/images/base64_text.py": "app/parsing app/protocol app/bad_input",
    "app/images/edits.py": "app/support app/unlabelled",
    "app/images/judging.py": "app/choice app/unlabelled",
    "app/images/fast_png.py": "app/fast_png app/predict",
    "app/images/pool.py": "app/pool app/bad_input app/metrics",
    "app/images/sandbox.py": "app/pool app/bad_input",
    "app/images/turns.py": "app/turns app/pool",
    "app/images/zip_names.py": "app/archives app/parsing",
    "app/inference/": "app/predict app/operation app/metrics",
    "app/queue.py": "store/queue store/lease",
    "app/store/": "store/lease store/memory store/trainings store/async_store store/lookup_cache app/operation",
    "app/store/backup.py": "store/backup",
    "app/store/batches.py": "store/lookup_cache store/episodes store/async_store",
    "app/store/episodes.py": "store/episodes store/async_store store/memory store/withdrawals app/support app/episodes",
    "app/store/jobs.py": "store/episodes store/async_store store/trainings store/withdrawals store/replication",
    "app/store/api_keys.py": "app/auth app/limits store/async_store app/session",
    "app/store/claims.py": "store/turns store/alike store/lease store/trainings workers/claims",
    "app/store/connections.py": "store/connections store/replication processes/failover",
    "app/store/deadline.py": "app/hanging_redis store/async_store",
    "app/store/measures.py": "workers/telemetry app/metrics",
    "app/store/notifications.py": "store/async_store app/episodes",
    "app/store/lua_names.py": "store/registry",
    "app/store/backbones.py": "store/backbones app/backbones cli/models store/backup",
    "app/store/folders.py": "store/folders workers/train_worker store/bucket",
    "app/store/installation.py": "store/installation store/backup",
    "app/store/leftovers.py": "store/leftovers store/objects workers/sweep",
    "app/store/objects.py": "store/objects store/bucket store/episodes",
    "app/store/reconciliation.py": "store/objects store/claims store/episodes store/lease",
    "app/store/registry.py": "store/registry store/lease",
    "app/store/replication.py": "store/replication processes/failover",
    "app/store/suitability.py": "store/suitability cli/doctor",
    "app/store/workers.py": "workers/reconciler app/metrics app/operation",
    "lamanas_core/adapt/adapted.py": (
        "learning/held_out learning/architecture learning/artifact learning/calibration goldens/goldens learning/paper "
        "learning/crops"
    ),
    "lamanas_core/adapt/batches.py": "learning/gradients learning/training_tasks learning/artifact goldens/goldens",
    "lamanas_core/adapt/foreign.py": "learning/foreign learning/artifact",
    "lamanas_core/adapt/held_out.py": "learning/held_out",
    "lamanas_core/adapt/unlabelled.py": "learning/unlabelled learning/crops",
    "lamanas_core/adapt/inner.py": (
        "learning/steps benchmarks/plain_training learning/gradients learning/artifact goldens/goldens learning/paper"
    ),
    "lamanas_core/adapt/onnx.py": "learning/artifact learning/paper",
    "lamanas_core/adapt/parameters.py": "learning/steps learning/starting goldens/goldens learning/gradients",
    "lamanas_core/adapt/together.py": "learning/together",
    "lamanas_core/artifact.py": "learning/artifact app/predict learning/shipped learning/crops",
    "lamanas_core/backbones/": "learning/taps learning/lite0 learning/timm_models",
    "lamanas_core/config.py": (
        "goldens/documents learning/presets learning/operations learning/architecture goldens/goldens learning/paper"
    ),
    "lamanas_core/data/augment.py": "learning/styles learning/training_tasks",
    "lamanas_core/data/episodes.py": "learning/episodes learning/training_tasks learning/calibration",
    "lamanas_core/data/folders.py": (
        "learning/episodes learning/training_tasks learning/training_folder learning/training_splits cli/data"
    ),
    "lamanas_core/data/sources/omniglot.py": (
        "learning/sources learning/training_splits cli/bad_command_lines learning/train_command learning/shipped"
    ),
    "lamanas_core/data/one_shot_runs.py": "learning/lake",
    "lamanas_core/data/splits.py": "learning/training_folder learning/training_splits learning/lake learning/shipped",
    "lamanas_core/data/crops.py": "learning/crops",
    "lamanas_core/data/maps.py": "learning/photo_training",
    "lamanas_core/data/": "cli/data learning/episodes",
    "lamanas_core/data/sources/glyphs.py": "learning/sources cli/data goldens/goldens",
    "lamanas_core/deep_samples.py": "images/image_files images/images",
    "lamanas_core/devices.py": "learning/training_folder learning/train_command",
    "lamanas_core/files.py": "files",
    "lamanas_core/genotype.py": "learning/architecture goldens/goldens",
    "lamanas_core/heads/": (
        "learning/gaussian learning/metric learning/losses learning/calibration learning/artifact learning/registries "
        "learning/paper"
    ),
    "lamanas_core/image_files.py": "images/image_files images/damaged_files images/images",
    "lamanas_core/image_kinds.py": "learning/image_kinds app/choice",
    "lamanas_core/images.py": "images/images images/image_files app/fast_png learning/artifact learning/training_tasks",
    "lamanas_core/image_spec.py": "goldens/documents learning/presets images/images learning/styles",
    "lamanas_core/layout.py": "layout app/archives learning/training",
    "lamanas_core/losses/invariant.py": (
        "learning/losses learning/gradients learning/together learning/starting goldens/goldens learning/paper"
    ),
    "lamanas_core/losses/paper.py": "benchmarks/plain_training learning/losses learning/paper",
    "lamanas_core/losses/slope.py": "learning/starting learning/plots",
    "lamanas_core/measure/ablate.py": "learning/ablation",
    "lamanas_core/measure/calibrate.py": "learning/calibration learning/training_splits learning/shipped",
    "lamanas_core/measure/evaluate.py": (
        "goldens/documents learning/evaluation learning/ablation learning/training_stages learning/shipped"
    ),
    "lamanas_core/measure/kinds.py": "learning/image_kinds learning/told_and_true",
    "lamanas_core/measure/landscape.py": "learning/plots",
    "lamanas_core/measure/metrics.py": "learning/calibration learning/evaluation learning/ablation",
    "lamanas_core/measure/one_shot_runs.py": "learning/lake",
    "lamanas_core/measure/table1/rows.py": "goldens/documents learning/reproduction",
    "lamanas_core/measure/table1/runs.py": "learning/reproduction",
    "lamanas_core/measure/table1/tables.py": "learning/figures learning/reproduction",
    "lamanas_core/measure/told_and_true.py": "learning/told_and_true",
    "lamanas_core/measure/unlabelled.py": "learning/unlabelled learning/evaluation",
    "lamanas_core/meta/gradient.py": "learning/gradients learning/algorithm_2 learning/paper goldens/goldens",
    "lamanas_core/meta/maml.py": (
        "benchmarks/plain_training learning/gradients learning/training_stages learning/paper goldens/goldens"
    ),
    "lamanas_core/meta/reptile.py": (
        "benchmarks/plain_training learning/algorithm_2 learning/steps learning/gradients goldens/goldens"
    ),
    "lamanas_core/meta/warm_up.py": "learning/warm_up learning/architecture learning/training_stages goldens/goldens",
    "lamanas_core/meta_model.py": "learning/artifact learning/starting learning/train_command learning/shipped",
    "lamanas_core/onnx_words.py": "learning/artifact",
    "lamanas_core/onnx_writer.py": "learning/artifact learning/registries learning/paper",
    "lamanas_core/recipe.py": (
        "goldens/documents learning/recipe learning/training_stages learning/training_tasks learning/styles"
    ),
    "lamanas_core/onnx_runtime.py": "learning/lite0 learning/artifact",
    "lamanas_core/search/alpha.py": (
        "learning/architecture learning/steps learning/together learning/plots learning/paper learning/artifact"
    ),
    "lamanas_core/search/batch_norm.py": "learning/batch_norm learning/artifact learning/paper",
    "lamanas_core/search/supernet.py": (
        "learning/architecture learning/operations learning/registries goldens/goldens learning/artifact"
    ),
    "lamanas_core/search/mixing.py": "learning/architecture learning/together learning/taps learning/steps",
    "lamanas_core/search/network.py": "learning/taps learning/architecture",
    "lamanas_core/search/registry.py": "learning/taps learning/architecture",
    "lamanas_core/search/normalisation.py": "learning/gradients learning/artifact learning/together learning/paper",
    "lamanas_core/search/operations.py": (
        "learning/operations learning/architecture learning/artifact learning/paper goldens/goldens"
    ),
    "lamanas_core/search/stems.py": (
        "learning/registries learning/train_command learning/operations learning/paper goldens/goldens"
    ),
    "lamanas_core/search/tap_operations.py": "learning/taps",
    "lamanas_core/search/taps.py": "learning/taps learning/crops",
    "lamanas_core/torchvision_modules.py": "learning/sources",
    "lamanas_core/train/card.py": "learning/training_splits learning/train_command learning/training_folder",
    "lamanas_core/train/checkpoint.py": (
        "learning/training_folder goldens/goldens learning/training learning/training_processes"
    ),
    "lamanas_core/train/distributed.py": "learning/training_folder learning/training_processes",
    "lamanas_core/train/loop.py": (
        "learning/training_folder learning/training_stages learning/train_command goldens/goldens "
        "learning/training learning/training_splits learning/training_processes learning/photo_training "
        "learning/reproduction"
    ),
    "lamanas_core/train/provenance.py": "learning/training_folder learning/train_command",
    "lamanas_core/train/run_folder.py": (
        "learning/training_folder learning/train_command learning/plots learning/training_processes"
    ),
    "lamanas_core/train/run_state.py": (
        "learning/training_folder learning/training_stages learning/algorithm_2 learning/reproduction"
    ),
    "lamanas_core/train/starting.py": "learning/starting learning/reproduction learning/photo_training",
    "lamanas_core/train/tasks.py": (
        "learning/training_tasks learning/training_folder learning/training_stages goldens/goldens"
    ),
    "lamanas_core/train/trained_classes.py": "learning/training_splits learning/lake cli/models",
    "workers/adapt.py": "workers/telemetry workers/claims workers/adapt_worker workers/adapt_together",
    "workers/child.py": "workers/claims workers/telemetry workers/adapt_worker",
    "workers/claims.py": "workers/claims workers/telemetry workers/adapt_worker",
    "workers/faults.py": "workers/faults",
    "workers/learner.py": "workers/main cli/models workers/telemetry workers/adapt_together processes/commands",
    "workers/logs.py": "app/telemetry workers/telemetry",
    "workers/main.py": "workers/main workers/telemetry workers/adapt_worker processes/commands",
    "workers/readiness.py": "workers/reconciler workers/main workers/adapt_worker",
    "workers/sweep.py": "workers/sweep",
    "workers/reconciler.py": "workers/reconciler workers/adapt_worker",
    "workers/tasks.py": "workers/claims workers/adapt_worker",
    "workers/time_limit.py": "workers/time_limit workers/adapt_worker",
    "workers/train.py": "workers/claims workers/train_worker",
}


def files_of(area: Iterable[str], root: Path = ROOT) -> list[str]:
    """Paths, relative to the root and sorted, that the globs of an area match."""
    return sorted({str(path.relative_to(root)) for pattern in area for path in root.glob(pattern)})


def row_of(path: str, table: Mapping[str, str] = TABLE) -> str:
    """The prefix in the table that decides which tests belong to a module; LookupError where there is none."""
    prefixes = [prefix for prefix in table if path.startswith(prefix)]
    if not prefixes:
        raise LookupError(f"no row of the table in tests/mutants/tests_of.py is for {path}")
    return max(prefixes, key=len)


def belonging(path: str, table: Mapping[str, str] = TABLE) -> tuple[str, ...]:
    """The test files that belong to a module, in the order in which they run."""
    words = (*table[row_of(path, table)].split(), *table.get(EVERY_MODULE, "").split())
    split = (word.rpartition("/") for word in words)
    return tuple(f"tests/{folder}{slash}test_{name}.py" for folder, slash, name in split)
