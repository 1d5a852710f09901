"""A patient's chest and the frame it is drawn in.

All lengths are centimetres in the plane of a 36 cm x 36 cm detector, x to the patient's left (the
image's right), y downwards, origin in the middle. Shapes are analytic or drawn on one canvas, so
the same chest can be drawn at any number of pixels.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator

FIELD = 36.0
"""Side of the detector, cm."""

LUNG_DENSITY = 0.26
"""Density of inflated lung relative to soft tissue (ICRU Report 44: 0.26 g/cm3)."""

RIGHT, LEFT = -1, 1
"""Sides of the patient, as the sign of x: a radiograph faces its reader."""


@dataclass
class Chest:
    """One patient's chest on one day, in cm; by default an average man, upright, breathing in.

    Attributes:
        ap: front-to-back projection of a patient in bed; otherwise back to front, upright.
        female, age: the patient's; age in years.
        depth: of the thorax, front to back, inside the ribs.
        wall: thickness of muscle and fat outside them.
        lung_half_width, apex, base: of the lungs; base is the lateral costophrenic angle.
        dome: height of the diaphragm over the base.
        raised: how much higher each half of the diaphragm stands than usual (right, left).
        heart_x, heart_lift, heart_a: centre of the heart, its height over the left dome, and half
            its transverse diameter.
        knob: radius of the aortic knob.
        breast: thickness.
        gas: radius of the stomach's bubble.
        rib_spacing, rib_phase, rib_drop: of the ribs; drop is from spine to front end.
        scoliosis: sideways bend of the spine.
        rotation: of the patient about the long axis, as a shift of what lies in front.
        lucency: path of air relative to normal; emphysema raises it.
        tilt, zoom, shift_x, shift_y: of the detector against the chest.
    """

    ap: bool = False
    female: bool = False
    age: float = 50.0
    depth: float = 15.0
    wall: float = 3.0
    lung_half_width: float = 13.3
    apex: float = -13.5
    base: float = 11.0
    dome: float = 4.2
    raised: tuple[float, float] = (0.0, 0.0)
    heart_x: float = 1.7
    heart_lift: float = 3.2
    heart_a: float = 6.2
    knob: float = 1.9
    breast: float = 0.0
    gas: float = 1.2
    rib_spacing: float = 2.5
    rib_phase: float = 0.0
    rib_drop: float = 8.5
    scoliosis: float = 0.0
    rotation: float = 0.0
    lucency: float = 1.0
    tilt: float = 0.0
    zoom: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    @property
    def heart_y(self) -> float:
        """Level of the heart's centre, cm."""
        return self.base - self.dome + 0.5 - self.heart_lift


def draw_chest(patient: np.random.Generator, visit: np.random.Generator, ap: bool) -> Chest:
    """Draw a patient's build and, from a second generator, what differs from image to image.

    Supine patients breathe in less, and an AP beam magnifies the heart.
    """
    # Plain floats: a NumPy scalar would make every array it meets float64.
    build = patient.normal(size=16).clip(-2.5, 2.5).tolist()
    day = visit.normal(size=11).clip(-2.5, 2.5).tolist()
    female, age = bool(patient.random() < 0.435), float(np.clip(47 + 17 * build[0], 3, 95))
    scale = (0.95 if female else 1.02) + 0.05 * build[1]
    fat = max(-1.0, build[2])
    breath = day[0] - (1.2 if ap else 0.0)
    half_width = 13.2 * scale + 0.2 * breath
    # Either half may stand high without any of the 14 findings: gas, obesity, a weak nerve.
    raised = [
        0.4 * part + (2.5 * visit.random() if visit.random() < 0.1 else 0.0) for part in day[9:]
    ]
    return Chest(
        ap=ap,
        female=female,
        age=age,
        depth=15.0 * scale + 1.1 * build[3],
        wall=3.3 + 1.1 * fat,
        lung_half_width=half_width,
        apex=-13.2 * scale + 0.8 * build[4],
        base=10.0 * scale + 0.9 * build[5] + 1.0 * breath,
        dome=4.2 + 0.7 * build[6] - 0.2 * breath,
        raised=(raised[0], raised[1]),
        heart_x=1.7 + 0.35 * build[7],
        heart_lift=3.2 * scale + 0.4 * build[8] - 0.2 * breath,
        heart_a=half_width * (0.445 + 0.025 * build[9] + (0.025 if ap else 0) - 0.005 * day[1]),
        knob=min(max(1.2 + 0.012 * age + 0.2 * build[10], 0.8), 2.8),
        breast=max(0.0, 2.4 + 1.2 * fat) if female and age > 13 else 0.0,
        gas=max(0.0, 0.9 + 0.8 * day[2]),
        rib_spacing=2.5 * scale + 0.15 * build[11],
        rib_phase=patient.uniform(0, 1),
        rib_drop=8.5 + 1.4 * build[12] - (1.5 if ap else 0),
        scoliosis=0.5 * build[13] * abs(build[14]),
        rotation=(0.9 if ap else 0.5) * day[3],
        tilt=(0.05 if ap else 0.025) * day[4],
        zoom=0.98 + 0.05 * day[5],
        shift_x=(1.0 if ap else 0.5) * day[6],
        shift_y=0.3 + (1.3 if ap else 0.9) * day[7],
    )


@dataclass
class Scene:
    """Path lengths in cm on the detector, each float32 (size, size), and where the organs are.

    Lesions and devices change them; physics reads them.

    Attributes:
        x, y: coordinates of the pixels' centres, cm; (size, size).
        lung: of aerated lung.
        tissue: of soft tissue outside the lung's own density; negative where air replaces it.
        bone: of cortical bone.
        vessels: of blood in the lung's vessels, where the lung is.
        device: attenuation of what is not body, in nepers.
        fields: bool, the two lungs in projection (right, left), also behind the heart, over the
            diaphragm.
        wall: how far the right lung reaches to the right and the left one to the left at each
            level, cm from x = 0; (size, 1) each.
        heart, mediastinum: bool, their silhouettes.
        texture: lumps of the lung's tissue, zero mean and unit variance.
        grain: unit white noise at 0.14 cm, for what is finer.
    """

    chest: Chest
    x: np.ndarray
    y: np.ndarray
    lung: np.ndarray
    tissue: np.ndarray
    bone: np.ndarray
    vessels: np.ndarray
    device: np.ndarray
    fields: tuple[np.ndarray, np.ndarray]
    wall: tuple[np.ndarray, np.ndarray]
    heart: np.ndarray
    mediastinum: np.ndarray
    texture: np.ndarray = field(repr=False)
    grain: np.ndarray = field(repr=False)

    @property
    def lungs(self) -> np.ndarray:
        """Lung seen beside heart and mediastinum, bool (size, size)."""
        return (self.fields[0] | self.fields[1]) & ~self.heart

    @property
    def pixel(self) -> float:
        """Side of a pixel, cm."""
        return float(self.x[0, 1] - self.x[0, 0])


def grid(chest: Chest, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels in the chest's frame, cm: float32 (size, size) and (size, 1)."""
    centre = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * FIELD * chest.zoom
    y = centre[:, None] + chest.shift_y
    return centre[None] + chest.shift_x + chest.tilt * y, y


def height(chest: Chest, y: np.ndarray) -> np.ndarray:
    """Height in the thorax: 0 at the lungs' apex, 1 at their base."""
    return (y - chest.apex) / (chest.base - chest.apex)


_CAGE = PchipInterpolator(
    [-0.3, 0, 0.04, 0.1, 0.2, 0.35, 0.55, 0.75, 0.9, 1.05, 1.6],
    [0.2, 0.33, 0.50, 0.62, 0.735, 0.85, 0.945, 0.99, 1.0, 0.985, 0.93],
)


def cage(chest: Chest, y: np.ndarray) -> np.ndarray:
    """Half the inner width of the rib cage at each level, cm."""
    return (chest.lung_half_width * _CAGE(height(chest, y).clip(-0.3, 1.6))).astype(np.float32)


def midline(chest: Chest, y: np.ndarray) -> np.ndarray:
    """Where the spine stands at each level, cm."""
    return chest.scoliosis * np.sin((y - chest.apex) / 7).astype(np.float32)


def chord(square: np.ndarray) -> np.ndarray:
    """Chord through a ball of half axis 1, relative: sqrt(1 - square), 0 outside."""
    return np.sqrt((1 - square).clip(0, None))


def rotate(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across an axis at an angle, radians, from x towards y."""
    c, s = math.cos(angle), math.sin(angle)
    return c * x + s * y, c * y - s * x


def window(
    x: np.ndarray, y: np.ndarray, x0: float, y0: float, a: float, b: float
) -> tuple[slice, slice]:
    """Columns and rows in which an ellipse can lie, so that small things cost little."""
    reach = a + 0.1 * (y[-1, 0] - y[0, 0])  # a tilted grid leans by no more
    columns = np.searchsorted(x[len(x) // 2], [x0 - reach, x0 + reach])
    rows = np.searchsorted(y[:, 0], [y0 - b, y0 + b])
    return slice(*columns), slice(*rows)


def resample(values: np.ndarray, size: int) -> np.ndarray:
    """Resize a float32 field: average where it shrinks, interpolate where it grows."""
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.array(image.resize((size, size), Image.Resampling.BICUBIC))
