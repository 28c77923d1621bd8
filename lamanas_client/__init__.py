"""Clients of the service, blocking (``Client``) and asynchronous (``AsyncClient``): see docs/python-client.md."""

from lamanas_client.clients import AsyncClient, Client
from lamanas_client.errors import (
    EpisodeFailedError,
    LamanasError,
    NotLamanasError,
    ProblemError,
    TimedOutError,
    UnreachableError,
)
from lamanas_client.retries import Retries
from lamanas_client.types import (
    Edge,
    Episode,
    Genotype,
    Model,
    Node,
    Operation,
    Parameters,
    Prediction,
    Progress,
    Session,
    Training,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Edge",
    "Episode",
    "EpisodeFailedError",
    "Genotype",
    "LamanasError",
    "Model",
    "Node",
    "NotLamanasError",
    "Operation",
    "Parameters",
    "Prediction",
    "ProblemError",
    "Progress",
    "Retries",
    "Session",
    "TimedOutError",
    "Training",
    "UnreachableError",
]
