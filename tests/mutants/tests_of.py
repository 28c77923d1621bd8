"""Which modules get faults, and which tests belong to each: the two tables to edit when files move."""

from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# The sample has of each area in proportion to its number of places. Globs are relative to the root.
AREAS: Mapping[str, tuple[str, ...]] = {
    "lamanas_core": ("lamanas_core/learning/**/*.py", "lamanas_core/images.py", "lamanas_core/artifact.py"),
    "app": (
        "app/store/**/*.py",
        # images
        "app/archive.py",
        "app/corrections.py",
        "app/decoder.py",
        "app/decoding.py",
        "app/multipart.py",
        "app/small.py",
        "app/uploads.py",
        # inference
        "app/predictor.py",
        "app/routes/predict.py",
    ),
    "workers": ("workers/**/*.py",),
}

# The longest prefix of a module's path decides. The tests of a row run in its order, up to the first failure: the most
# specific and fastest first. One string a row: names of files under ``tests/``, without ``test_`` and ``.py``.
TABLE: Mapping[str, str] = {
    "app/archive.py": "app/parsing app/bad_input app/episodes",
    "app/corrections.py": "app/support",
    "app/decod": "app/decoder app/bad_input",
    "app/multipart.py": "app/parsing app/bad_input app/episodes app/predict",
    "app/predictor.py": "app/predict app/operation app/telemetry",
    "app/routes/predict.py": "app/predict app/telemetry app/bad_input",
    "app/small.py": "app/small app/predict",
    "app/uploads.py": "app/bad_input app/support app/predict app/episodes",
    "app/store/": "store/lease store/memory store/trainings store/async_store store/standings app/operation",
    "app/store/access.py": "app/auth app/limits store/async_store app/session",
    "app/store/async_store.py": "store/async_store store/lease store/memory store/trainings app/episodes app/auth",
    "app/store/broker.py": "store/broker store/lease",
    "app/store/changes.py": "store/async_store app/episodes",
    "app/store/codec.py": "store/lease store/trainings store/async_store app/episodes",
    "app/store/keys.py": "store/lease store/memory store/trainings store/async_store app/auth app/limits",
    "app/store/measures.py": "workers/telemetry app/telemetry",
    "app/store/observed.py": "app/telemetry app/operation",
    "app/store/standings.py": "store/standings store/async_store app/queues app/episodes",
    "app/store/sync_store.py": (
        "store/lease store/memory store/trainings workers/reconciler workers/claims app/operation"
    ),
    "lamanas_core/artifact.py": "learning/artifact app/predict learning/shipped",
    "lamanas_core/images.py": "images/images app/small learning/artifact learning/training_tasks",
    "lamanas_core/learning/ablation.py": "learning/ablation",
    "lamanas_core/learning/adaptation.py": (
        "learning/architecture learning/artifact learning/calibration learning/paper"
    ),
    "lamanas_core/learning/architecture.py": "learning/architecture learning/plots learning/paper learning/artifact",
    "lamanas_core/learning/batch_norm.py": "learning/batch_norm learning/artifact learning/paper",
    "lamanas_core/learning/batches.py": "learning/gradients learning/training_tasks learning/training",
    "lamanas_core/learning/calibration.py": "learning/calibration learning/shipped",
    "lamanas_core/learning/checkpoint.py": "learning/training_folder learning/training learning/training_processes",
    "lamanas_core/learning/config.py": "learning/presets learning/operations learning/architecture learning/paper",
    "lamanas_core/learning/datasets.py": "learning/episodes learning/training_tasks learning/training_folder cli/data",
    "lamanas_core/learning/devices.py": "learning/training_folder learning/train_command",
    "lamanas_core/learning/distributed.py": "learning/training_folder learning/training_processes",
    "lamanas_core/learning/episodes.py": "learning/episodes learning/training_tasks learning/calibration",
    "lamanas_core/learning/evaluation.py": "learning/evaluation learning/ablation learning/training learning/shipped",
    "lamanas_core/learning/heads.py": "learning/losses learning/calibration learning/artifact learning/paper",
    "lamanas_core/learning/loss_landscape.py": "learning/plots",
    "lamanas_core/learning/loss_slope.py": "learning/starting learning/plots",
    "lamanas_core/learning/losses.py": "learning/losses learning/gradients learning/starting learning/paper",
    "lamanas_core/learning/meta_learners.py": (
        "learning/gradients learning/training_tasks learning/paper learning/training learning/algorithm_2"
    ),
    "lamanas_core/learning/meta_model.py": (
        "learning/artifact learning/starting learning/train_command learning/shipped"
    ),
    "lamanas_core/learning/normalisation.py": "learning/gradients learning/artifact learning/paper",
    "lamanas_core/learning/omniglot_download.py": "cli/bad_command_lines learning/train_command",
    "lamanas_core/learning/onnx_graph.py": "learning/artifact learning/paper",
    "lamanas_core/learning/operations.py": "learning/operations learning/architecture learning/artifact learning/paper",
    "lamanas_core/learning/paper_losses.py": "learning/losses learning/paper",
    "lamanas_core/learning/prototypes.py": "learning/losses learning/gradients learning/artifact",
    "lamanas_core/learning/provenance.py": "learning/training_folder learning/train_command",
    "lamanas_core/learning/reproduction.py": "learning/figures learning/reproduction",
    "lamanas_core/learning/run_folder.py": (
        "learning/training_folder learning/train_command learning/training_processes"
    ),
    "lamanas_core/learning/starting.py": "learning/starting learning/reproduction",
    "lamanas_core/learning/stems.py": "learning/train_command learning/operations learning/artifact learning/paper",
    "lamanas_core/learning/styles.py": "learning/styles learning/training_tasks",
    "lamanas_core/learning/supernet.py": (
        "learning/architecture learning/operations learning/gradients learning/artifact"
    ),
    "lamanas_core/learning/task_learner.py": "learning/gradients learning/artifact learning/paper learning/training",
    "lamanas_core/learning/training.py": (
        "learning/training_folder learning/train_command learning/training learning/training_processes"
    ),
    "lamanas_core/learning/training_tasks.py": "learning/training_tasks learning/training_folder learning/training",
    "lamanas_core/learning/warm_up.py": "learning/training_folder learning/architecture learning/training",
    "workers/adapt.py": "workers/telemetry workers/claims workers/adapt_worker",
    "workers/child.py": "workers/claims workers/telemetry workers/adapt_worker",
    "workers/claims.py": "workers/claims workers/telemetry workers/adapt_worker",
    "workers/faults.py": "workers/faults",
    "workers/learner.py": "cli/models workers/telemetry processes/commands",
    "workers/logs.py": "app/telemetry workers/telemetry",
    "workers/main.py": "workers/telemetry workers/adapt_worker processes/commands",
    "workers/reconciler.py": "workers/reconciler workers/adapt_worker",
    "workers/tasks.py": "workers/claims workers/adapt_worker",
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
    words = (word.rpartition("/") for word in table[row_of(path, table)].split())
    return tuple(f"tests/{folder}/test_{name}.py" for folder, _, name in words)
