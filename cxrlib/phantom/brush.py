"""What the findings of the phantom are drawn with, and what they do to a chest beforehand."""

from dataclasses import dataclass

import numpy as np

from cxrlib.phantom.chest import LUNG_DENSITY, Chest, Scene, resample
from cxrlib.phantom.targets import Target, draw_target

FLUID = 1 - LUNG_DENSITY
"""What a cm of lung gains when fluid takes the place of all its air, in cm of soft tissue."""

FOCAL = ("Atelectasis", "Infiltration", "Mass", "Nodule", "Pneumonia", "Consolidation")
"""Findings that come as separate foci."""

_MORE_FOCI = {"Nodule": 0.25, "Pneumonia": 0.15, "Infiltration": 0.15, "Atelectasis": 0.05}
"""How likely one more focus is, again and again."""

Mask = np.ndarray
"""bool (size, size)"""


@dataclass
class Brush:
    """What a lesion is drawn with.

    Attributes:
        scene: is changed.
        rng: draws.
        size: scale of widths and heights.
        contrast: scale of densities; 1 is as in life.
        foci: how many, or None for a natural number.
        plan: targets of what was prepared before the scene existed, by finding.
    """

    scene: Scene
    rng: np.random.Generator
    size: float
    contrast: float
    foci: int | None
    plan: dict[str, Target]

    def targets(self, name: str) -> list[Target]:
        """Places for the foci of a finding, as far as can be where lung is seen."""
        count = self.foci or 1 + min(int(self.rng.geometric(1 - _MORE_FOCI.get(name, 0.0))) - 1, 3)
        return [self.place(name) for _ in range(count)]

    def place(self, name: str) -> Target:
        """The first of a few draws that lies in lung beside the heart, or the nearest to it."""
        best, most = None, -1.0
        for attempt in range(12):
            target = draw_target(name, self.scene.chest, self.rng, self.size)
            where = self.window(target)
            lung, heart = self.scene.fields[target.side][where], self.scene.heart[where]
            share = min(lung.mean(), 4 * (lung & ~heart).mean()) if lung.size else 0.0
            if share > most:
                best, most = target, share
            if share > (0.6 if attempt < 3 else 0.1):
                break
        assert best is not None
        return best

    def window(self, target: Target, reach: float = 1.0) -> tuple[slice, slice]:
        """Rows and columns around a target."""
        scene, size = self.scene, len(self.scene.y)
        y0 = scene.y[0, 0]
        row = np.clip((target.y - y0) / scene.pixel, 0, size - 1)
        x0 = scene.x[int(row), 0]
        ends = reach * np.array([-1, 1])
        columns = (target.x + ends * target.a - x0) / scene.pixel
        rows = (target.y + ends * target.b - y0) / scene.pixel
        (top, low), (left, right) = (np.clip(part, 0, size).astype(int) for part in (rows, columns))
        return slice(top, low + 1), slice(left, right + 1)

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise of about unit variance, correlated over FIELD / cells cm."""
        return 1.3 * resample(
            self.rng.standard_normal((cells, cells), dtype=np.float32), len(self.scene.x)
        )

    def fill(self, where: tuple[slice, slice], opacity: np.ndarray, side: int) -> None:
        """Let fluid or cells take the place of air in one lung: opacity 0 to 1 of it."""
        scene = self.scene
        here = (scene.x[where] > 0) == bool(side)
        filled = (self.contrast * opacity * here).clip(0, 1)
        scene.tissue[where] += FLUID * filled * scene.lung[where]
        scene.vessels[where] *= 1 - 0.8 * filled  # no vessel shows in airless lung

    def empty_mask(self) -> Mask:
        """A mask with nothing in it."""
        return np.zeros_like(self.scene.heart)


def prepare(name: str, chest: Chest, rng: np.random.Generator, size: float) -> Target | None:
    """Change a chest before it is projected: heart, diaphragm and lungs that a finding moves.

    Returns:
        the target that the chest was fitted to, if the finding has one.
    """
    if name == "Cardiomegaly":
        target = draw_target(name, chest, rng)
        # The size scales what is too much of the heart, so that 0.5 is a heart half as enlarged.
        normal = 0.46 * chest.lung_half_width
        chest.heart_a = max(normal + size * (target.a - normal), 1.02 * normal)
        chest.heart_x = target.x - 0.5 * chest.rotation
        chest.base = target.y + target.b + chest.dome - 2.0
        chest.heart_lift = 2 * target.b - 1.5 - 0.914 * chest.heart_a
        chest.lung_half_width = min(
            max(chest.lung_half_width, chest.heart_a / 0.75), chest.heart_a / 0.51
        )
        return target
    if name == "Effusion":
        target = draw_target(name, chest, rng, size)
        # The bottom of the box is where this lung seems to end: fluid under it lifts it.
        lift = float(np.clip(chest.base - (target.y + target.b), -2, 6))
        right, left = chest.raised
        chest.raised = (right, lift) if target.side else (lift, left)
        return target
    if name == "Emphysema":
        chest.lucency *= 1.0 + 0.1 * size * rng.uniform(0.3, 1.2)
        chest.dome *= 1 - 0.4 * min(size, 1.5) * rng.uniform(0.2, 1.0)
        chest.base += 0.8 * size
        chest.heart_a *= 0.95
    if name == "Fibrosis":
        chest.base -= 1.0 * size
    return None


def cloud(
    brush: Brush, target: Target, where: tuple[slice, slice], ragged: float
) -> tuple[np.ndarray, Mask]:
    """Opacity 0 to 1 that fills a target irregularly, and its outline."""
    scene = brush.scene
    u, v = (scene.x[where] - target.x) / target.a, (scene.y[where] - target.y) / target.b
    radius = np.sqrt(np.sqrt(u**4 + v**4))  # rounder than the box, fuller than an ellipse
    warped = radius + 0.12 * brush.noise(14)[where]
    opacity = (1.6 * (1.12 - warped)).clip(0, 1) * (1 + ragged * (scene.texture[where] - 0.5))
    return opacity.clip(0, 1), warped < 1.0


def placed(brush: Brush, where: tuple[slice, slice], inside: Mask, field: Mask) -> Mask:
    """A mask of what is inside an outline, drawn in a window, and in a lung."""
    mask = brush.empty_mask()
    mask[where] = inside & field[where]
    return mask
