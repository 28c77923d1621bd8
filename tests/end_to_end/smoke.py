"""Whether a running service, however it was started, adapts to drawings and to photos and then tells them apart.

    python -m tests.end_to_end.smoke http://127.0.0.1:8000 TOKEN

Ends with 0 if so. With Docker Compose, TOKEN is what ``docker compose exec -T app lamanas token`` prints.
"""

import sys
from collections.abc import Sequence

import httpx

from tests.chaos.clients import Job
from tests.end_to_end.client import adapt, predict

JOBS = (Job(0), Job(1))


def main(arguments: Sequence[str]) -> int:
    url, token = arguments
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token.strip()}"}, timeout=120) as client:
        for job in JOBS:
            support, _ = job.files()
            episode = adapt(client, support, name=f"smoke: {job.kind}")
            labels = [found["label"] for found in predict(client, episode["id"], [file for _, file in support])]
            if (episode["model_kind"], labels) != (job.kind, [label for label, _ in support]):
                print(f"{job.kind}: the model is for {episode['model_kind']}, and says {labels}", file=sys.stderr)
                return 1
            print(f"{job.kind}: adapted, and all {len(labels)} images classified")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
