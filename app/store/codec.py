"""Records to and from the hashes that hold them: three JSON fields and a few plain ones."""

import json
from collections.abc import Mapping
from typing import Any

from app.store.records import EpisodeRecord, KeyRecord, ModelRecord, TrainingRecord

Hash = Mapping[bytes, bytes]
_EPISODE_TUPLES = ("classes", "shots", "losses", "warnings")


def encode(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def text(value: bytes | None) -> str | None:
    """A field or a key of text; None where there is none."""
    return None if value is None else value.decode()


def _merged(hash: Hash) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in (b"spec", b"progress", b"result"):
        fields |= json.loads(hash.get(part) or b"{}")
    fields["state"] = hash[b"state"].decode()
    fields["attempts"] = int(hash.get(b"attempts", 0))
    fields["error"] = hash[b"error"].decode() if hash.get(b"error") else None
    fields["created_at"] = int(hash[b"created_at"]) / 1000
    return fields


def episode(hash: Hash) -> EpisodeRecord:
    fields = _merged(hash)
    fields["expires_at"] = int(hash[b"expires_at"]) / 1000
    for name in _EPISODE_TUPLES:
        if name in fields:
            fields[name] = tuple(fields[name])
    fields.pop("labels", None)
    return EpisodeRecord(**fields)


def episode_labels(hash: Hash) -> list[int]:
    """The label number of each support image, in the order of the images."""
    return list(json.loads(hash[b"spec"])["labels"])


def training(hash: Hash) -> TrainingRecord:
    fields = _merged(hash)
    if "losses" in fields:
        fields["losses"] = tuple(fields["losses"])
    return TrainingRecord(**fields, cancelling=hash.get(b"cancel") == b"1")


def model(version: str, hash: Hash, active: str | None) -> ModelRecord:
    return ModelRecord(
        version=version,
        card=json.loads(hash[b"card"]),
        active=version == active,
        created_at=int(hash[b"created_at"]) / 1000,
    )


def key(id: str, hash: Hash) -> KeyRecord:
    return KeyRecord(
        id=id,
        name=hash[b"name"].decode(),
        tenant=hash.get(b"tenant", id.encode()).decode(),  # keys made before tenants were
        scopes=frozenset(json.loads(hash[b"scopes"])),
        created_at=int(hash[b"created_at"]) / 1000,
        revoked=hash.get(b"revoked") == b"1",
    )
