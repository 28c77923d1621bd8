"""A real training run on a small folder of images, asked for over HTTP."""

import json

import httpx
import pytest

from cli.main import main
from tests.conftest import Service


@pytest.fixture(scope="module")
def dataset(service: Service) -> str:
    folder = service.data_dir / "datasets" / "glyphs"
    assert main(["data", "glyphs", "--to", str(folder), "--classes", "10", "--images", "6"]) == 0
    return folder.name


def events(lines: list[str]) -> list[tuple[str, dict[str, object]]]:
    """Name and data of each server-sent event."""
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return list(zip(names, data, strict=True))


def test_run_ends_with_a_model_that_can_be_activated_and_rolled_back(service: Service, dataset: str) -> None:
    with httpx.Client(base_url=service.url, headers=service.headers, timeout=httpx.Timeout(30, read=300)) as client:
        before = [model["version"] for model in client.get("/models").json()["models"] if model["active"]]
        answer = client.post("/train", json={"dataset": dataset, "meta_epochs": 1, "ways": 2, "shots": 1})
        assert answer.status_code == 202, answer.text
        with client.stream("GET", f"/train/{answer.json()['id']}/events") as stream:
            seen = events(list(stream.iter_lines()))
        assert seen[-1][0] == "finished", seen[-1]
        assert [data["epoch"] for _, data in seen] == sorted(int(str(data["epoch"])) for _, data in seen)
        run = client.get(f"/train/{answer.json()['id']}").json()
        assert run["epoch"] == run["epochs"] > 0
        assert len(run["losses"]) == run["epochs"]
        models = {model["version"]: model["active"] for model in client.get("/models").json()["models"]}
        assert models[run["model_version"]] is False
        assert client.post(f"/models/{run['model_version']}/activate").json()["active"] is True
        assert client.post(f"/models/{before[0]}/activate").json()["active"] is True


def test_run_on_an_unknown_data_set_leaves_no_model(service: Service, dataset: str) -> None:
    with httpx.Client(base_url=service.url, headers=service.headers, timeout=httpx.Timeout(30, read=300)) as client:
        before = client.get("/models").json()
        answer = client.post("/train", json={"dataset": "nowhere"})
        if answer.status_code == 202:  # an app on another host cannot see the folder: its worker says so
            with client.stream("GET", f"/train/{answer.json()['id']}/events") as stream:
                name, data = events(list(stream.iter_lines()))[-1]
            assert name == "failed"
            assert "there is no data set 'nowhere'" in str(data["error"])
            assert "glyphs" in str(data["error"])
        assert client.get("/models").json() == before
