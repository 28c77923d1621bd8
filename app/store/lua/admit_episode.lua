-- include: common objects admission episode_admission replication
-- keys: queued idempotency unfinished
-- args: bytes:number max_queue:number digest idempotent:flag max_unfinished:number max_object_bytes:number
-- args: max_memory:number
-- Whether an episode with so many bytes would be accepted: {'admitted', the time (ms)}, or as create_episode refuses it;
-- and how many replicas are connected.
local found = refused(queued, idempotency, unfinished, {
  bytes = bytes, max_queue = max_queue, digest = digest, idempotent = idempotent, max_unfinished = max_unfinished,
  max_object_bytes = max_object_bytes, max_memory = max_memory,
}) or {'admitted', now}
found[3] = replicas()
return found
