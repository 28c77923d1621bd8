"""Photos of things on a table, rendered: cups, dice and rings, with light and grain. For the README's pictures, and for
the page's example of photos, which ``python -m tests.e2e.scenes`` writes to app/examples.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Points = np.ndarray  # float (n, 3): x to the right, y up, z towards the camera; the table is at y = 0
Distance = Callable[[Points], np.ndarray]
STEPS, NEAR, FAR = 70, 1e-3, 12.0
EXAMPLES = Path(__file__).resolve().parents[2] / "app" / "examples"
LIGHT = np.array([-0.5, 0.8, 0.45]) / np.linalg.norm([-0.5, 0.8, 0.45])


def _length(*parts: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(sum(part**2 for part in parts)))


def cup(at: Points) -> np.ndarray:
    """A cup without a lid, with a handle."""
    x, y, z = at[:, 0], at[:, 1] - 0.8, at[:, 2]
    wall = np.maximum(np.abs(_length(x, z) - 0.62) - 0.07, np.abs(y) - 0.78)
    floor = np.maximum(_length(x, z) - 0.6, np.abs(y + 0.7) - 0.08)
    handle = _length(_length(x - 0.72, y) - 0.42, z) - 0.1
    return np.asarray(np.minimum(np.minimum(wall, floor), np.maximum(handle, 0.6 - x)))


def die(at: Points) -> np.ndarray:
    """A die with rounded edges and a pit in each of the faces that are seen."""
    centred = np.abs(at - np.array([0.0, 0.72, 0.0]))
    outside = np.maximum(centred - 0.6, 0.0)
    box = np.linalg.norm(outside, axis=1) - 0.12
    pits = np.minimum.reduce(
        [np.linalg.norm(at - np.array(pit), axis=1) for pit in ((0.0, 0.72, 0.78), (0.78, 0.72, 0.0), (0.0, 1.5, 0.0))]
    )
    return np.asarray(np.maximum(box, 0.24 - pits))


def ring(at: Points) -> np.ndarray:
    """A thick ring that leans on nothing."""
    x, y, z = at[:, 0], at[:, 1] - 0.85, at[:, 2]
    return _length(_length(x, y) - 0.6, z) - 0.24


THINGS: dict[str, Distance] = {"cup": cup, "die": die, "ring": ring}


def photo(thing: str, seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """The thing from a side, in colours and on a table of its seed."""
    rng = np.random.default_rng([seed, *thing.encode()])
    turn, tilt, distance = rng.uniform(-0.9, 0.9), rng.uniform(0.3, 0.6), rng.uniform(4.2, 5.4)
    colour = rng.uniform(0.55, 0.95, 3) * rng.permutation([1.0, 0.75, 0.4])
    table = rng.uniform(0.5, 1.0) * np.array([0.72, 0.52, 0.36]) + rng.uniform(-0.06, 0.06, 3)
    eye = distance * np.array([0.0, np.sin(tilt), np.cos(tilt)]) + np.array([0.0, 0.7, 0.0])
    rays = _rays(width, height, eye, np.array([rng.uniform(-0.25, 0.25), 0.7, 0.0]))
    spun = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])

    def scene(at: Points) -> np.ndarray:
        return np.asarray(np.minimum(THINGS[thing](at @ spun), at[:, 1]))

    reached = _march(scene, eye, rays)
    at = eye + reached[:, None] * rays
    normal = _normals(scene, at)
    on_table = at[:, 1] < 4 * NEAR
    lit = np.clip(normal @ LIGHT, 0, 1) * (_march(scene, at + 0.03 * normal, np.broadcast_to(LIGHT, at.shape)) >= FAR)
    shine = np.clip((2 * (normal @ LIGHT)[:, None] * normal - LIGHT) @ -rays.mean(axis=0), 0, 1) ** 30 * lit * ~on_table
    grain = 0.05 * np.sin(9 * at[:, 0] + 2 * np.sin(3 * at[:, 2]))[:, None]  # of the wood
    base = np.where(on_table[:, None], table + grain, colour)
    shaded = base * (0.35 + 0.75 * lit)[:, None] + 0.5 * shine[:, None]
    fog = np.clip((reached / FAR)[:, None], 0, 1) ** 2
    image = (shaded * (1 - fog) + 0.8 * table * fog).reshape(height, width, 3)
    image += rng.normal(0, 0.015, image.shape)
    return Image.fromarray((255 * np.clip(image, 0, 1) ** 0.85).astype(np.uint8))


def _rays(width: int, height: int, eye: np.ndarray, target: np.ndarray) -> Points:
    """The direction of each pixel from the eye."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(0.75, -0.75, height))
    rays = forward + 0.42 * (across.ravel()[:, None] * right + down.ravel()[:, None] * up)
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _march(scene: Distance, start: np.ndarray, rays: Points) -> np.ndarray:
    """How far each ray gets before it meets something, at most ``FAR``."""
    reached = np.zeros(len(rays))
    for _ in range(STEPS):
        reached = np.minimum(reached + 0.9 * scene(start + reached[:, None] * rays), FAR)
    return reached


def _normals(scene: Distance, at: Points) -> Points:
    steps = NEAR * np.eye(3)
    slope = np.stack([scene(at + step) - scene(at - step) for step in steps], axis=1)
    return np.asarray(slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9))


def example(thing: str, number: int) -> Image.Image:
    """The photo with this number, from 0, in the page's example."""
    return photo(thing, 20 + number, 240, 180)


def main() -> None:
    for thing in THINGS:
        (EXAMPLES / thing).mkdir(parents=True, exist_ok=True)
        for number in range(5):
            example(thing, number).save(EXAMPLES / thing / f"{number}.jpg", quality=80)


if __name__ == "__main__":
    main()
