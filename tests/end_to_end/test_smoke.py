"""The check of a running service."""

import pytest

from tests.conftest import Service
from tests.end_to_end import smoke


def test_a_service_with_both_models_passes(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main([service.url, f"{service.token}\n"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "drawings: adapted, and all 5 images classified",
        "photos: adapted, and all 5 images classified",
    ]


def test_a_wrong_answer_fails(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smoke, "predict", lambda client, id, files: [{"label": "class 0"} for _ in files])
    assert smoke.main([service.url, service.token]) == 1
    assert "drawings: the model is for drawings, and says ['class 0'" in capsys.readouterr().err
