"""The names of keys in Redis: changing one would lose the data of existing installations."""

from app.store import keys


def test_names_match_those_of_existing_installations() -> None:
    assert (keys.CHANGES, keys.EXPIRY, keys.API_KEYS) == ("lam:changes", "lam:expiry", "lam:keys")
    assert (keys.MODELS, keys.ACTIVE_MODELS) == ("lam:models", "lam:active-models")
    assert keys.MODELS_USED == "lam:models-used"
    assert keys.FORMER_ACTIVE_MODEL == "lam:models:active"
    assert (keys.SUPPORT_SETS, keys.CLASSIFIERS) == ("lam:support", "lam:classifiers")
    assert (keys.STORED_BYTES, keys.CLASSIFIERS_USED) == ("lam:stored-bytes", "lam:classifiers-used")
    assert keys.INSTALLATION == "lam:installation"
    assert keys.FORMER_ADOPTED == "lam:former-adopted"
    assert keys.MEASUREMENTS == "lam:measures"
    assert (keys.record("episode", "i"), keys.record("training", "i")) == ("lam:episode:i", "lam:training:i")
    assert (keys.index("episode"), keys.index("training", "o")) == ("lam:episodes", "lam:trainings:o")
    assert (keys.queued("episode"), keys.queued("training")) == ("lam:queued:adapt", "lam:queued:train")
    assert (keys.leases("episode"), keys.leases("training")) == ("lam:leases:adapt", "lam:leases:train")
    assert keys.broker_queue("episode") == "lamanas.adapt"
    assert (keys.unfinished("o"), keys.bucket("k")) == ("lam:unfinished:o", "lam:bucket:k")
    assert keys.former_support("i") == "lam:support:i"
    assert keys.tombstone("episode", "i") == "lam:tombstone:episode:i"
    assert (keys.model("v"), keys.api_key("k")) == ("lam:model:v", "lam:key:k")
    assert (keys.workers("adapt"), keys.draining("h-1")) == ("lam:workers:adapt", "lam:draining:h-1")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of abc
    assert keys.token_digest("abc") == digest
    assert keys.api_key_by_token(digest) == f"lam:key-by-token:{digest[:16]}"
    assert keys.idempotency("o", "abc") == f"lam:idempotency:o:{digest}"


def test_ids_sort_by_age_and_differ() -> None:
    ids = [keys.new_id() for _ in range(100)]
    assert {len(id) for id in ids} == {26}
    assert len(set(ids)) == 100
    assert [id[:9] for id in ids] == sorted(id[:9] for id in ids)
