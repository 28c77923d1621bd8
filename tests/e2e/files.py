"""Files as they get into the page, chosen or dragged onto it from a file manager, and as it sends them."""

import base64
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

# Playwright shows a request without the files of its form, so the page keeps them.
CATCH_FORMS = """() => {
  const send = window.fetch;
  window.forms = {};
  window.fetch = (path, options) => {
    if (options?.body instanceof FormData) forms[path.replace(/^\\/?/, "/")] = options.body;
    return send(path, options);
  };
}"""
READ_FORM = """async (path) => {
  const files = {};
  for (const value of forms[path].values()) {
    if (!(value instanceof File)) continue;
    const bytes = new Uint8Array(await value.arrayBuffer());
    files[value.name] = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  }
  return files;
}"""


def upload(name: str, data: bytes, kind: str = "application/octet-stream") -> Any:
    """A file for ``set_input_files``."""
    return {"name": name, "mimeType": kind, "buffer": data}


def packed(files: dict[str, bytes]) -> bytes:
    """A zip of them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def written(folder: Path, files: dict[str, bytes]) -> list[str]:
    """The paths of these files once they lie in the folder."""
    paths = [folder / name for name in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return [str(path) for path in paths]


def drag_onto(page: Page, target: Locator, paths: list[str]) -> None:
    """Lets files or folders of this machine fall onto the target."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    screen = page.context.new_cdp_session(page)
    data = {"items": [], "files": paths, "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        screen.send("Input.dispatchDragEvent", {"type": kind, "data": data} | place)
    screen.detach()


def sent_files(page: Page, path: str, act: Callable[[], None]) -> dict[str, bytes]:
    """The files, by name, of the form that the page sends to this path when this is done."""
    page.evaluate(CATCH_FORMS)
    with page.expect_request(lambda request: request.url.endswith(path) and request.method == "POST"):
        act()
    found: dict[str, str] = page.evaluate(READ_FORM, path)
    return {name: base64.b64decode(data) for name, data in found.items()}
