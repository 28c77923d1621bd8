"""The JavaScript of docs/onnx.md in a browser, with the pixels that it decodes itself."""

import base64
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load
from tests.end_to_end.characters import draw_task
from tests.onnx_file import asked
from tests.onnx_file.page import JAVASCRIPT


@pytest.fixture(scope="module")
def files(omniglot: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    drawings = [file for _, file in draw_task(omniglot, ways=5, shots=1, queries=4, seed=6).queries]
    written = asked.write(drawings, tmp_path_factory.mktemp("asked"))
    return [file for file in written if file.suffix != ".tif"]  # no browser shows a TIFF


@pytest.mark.parametrize(("name", "spec"), [("drawing", ImageSpec()), ("photo", ImageSpec(56, 3, False))])
def test_a_browser_makes_the_services_pixels_of_a_file(
    name: str, spec: ImageSpec, browser: Browser, files: list[Path]
) -> None:
    page = browser.new_page()
    program = "\n".join(JAVASCRIPT)
    for file in files:
        data = file.read_bytes()
        found = page.evaluate(
            f"""async (text) => {{
                {program}
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                return [...{name}(await pixels(new Blob([bytes])), {spec.size})];
            }}""",
            base64.b64encode(data).decode(),
        )
        expected = load(data, spec, max_pixels=2_000_000)
        difference = np.abs(np.array(found).reshape(spec.shape) - expected).max()
        assert difference <= asked.largest_difference(file), (file.name, difference)
    page.close()
