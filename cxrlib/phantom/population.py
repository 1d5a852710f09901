"""Patients made of the phantom: who they are, what they have, and each of their images.

Imports no torch, so that the processes that render start at once and stay small.
"""

from dataclasses import dataclass

import numpy as np

from cxrlib.findings import FINDINGS
from cxrlib.phantom import anatomy, lesions, physics

CHRONIC = ("Cardiomegaly", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
"""Findings that a patient has on all of his images or on none."""

_VISITS = (1, 1, 2, 3, 1, 4)  # images per patient, over and over
_PATIENT_OF = np.repeat(np.arange(len(_VISITS)), _VISITS)
_ANATOMY, _VISIT, _FINDINGS, _RENDER = range(4)  # streams of random numbers that do not touch


@dataclass(frozen=True)
class Radiograph:
    """One phantom image and all that is known of it.

    Attributes:
        pixels: uint8 (size, size).
        masks: bool (14, size, size), the pixels of each finding.
        labels: float32 (14,), 0/1.
        patient: number of the patient.
    """

    pixels: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    patient: int


def patient_of(index: int) -> int:
    """Number of the patient an image is of; a patient has one to four images."""
    cycle, rest = divmod(index, len(_PATIENT_OF))
    return int(cycle * len(_VISITS) + _PATIENT_OF[rest])


def render(index: int, size: int, *, seed: int = 0, prevalence: float = 0.12) -> Radiograph:
    """Draw one image.

    Args:
        index: which image, 0 or more.
        size: pixels per side, 64 to 1024.
        seed: of the population.
        prevalence: of each finding, 0 to 1, independent of the others.

    Returns:
        the image with its masks and labels; equal arguments give equal bytes.

    Raises:
        ValueError: an argument is out of its range.

    >>> image = render(3, 64)
    >>> image.pixels.shape, image.masks.shape, image.patient
    ((64, 64), (14, 64, 64), 2)
    """
    check(size, prevalence)
    patient = patient_of(index)
    stream = {
        key: np.random.default_rng([seed, key, index]) for key in (_VISIT, _FINDINGS, _RENDER)
    }
    build = np.random.default_rng([seed, _ANATOMY, patient])
    chest = anatomy.draw_chest(build, stream[_VISIT])
    present = np.where(_is_chronic(), build.random(14), stream[_FINDINGS].random(14)) < prevalence
    names = [name for name, here in zip(FINDINGS, present, strict=True) if here]
    for name in filter(lesions.BEFORE.__contains__, names):
        lesions.BEFORE[name](chest, build)
    scene = anatomy.project(chest, stream[_RENDER], size)
    masks = np.zeros((len(FINDINGS), size, size), bool)
    for name in names:
        masks[FINDINGS.index(name)] = lesions.LESIONS[name](scene, stream[_FINDINGS])
    return Radiograph(
        physics.radiograph(scene, stream[_RENDER]),
        masks,
        np.asarray(masks.any(axis=(1, 2)), np.float32),
        patient,
    )


def _is_chronic() -> np.ndarray:
    return np.isin(FINDINGS, CHRONIC)


def check(size: int, prevalence: float) -> None:
    """Refuse a size or a prevalence out of range."""
    if not 64 <= size <= 1024:
        raise ValueError(f"image_size = {size}; the phantom has 64 to 1024 pixels per side")
    if not 0 <= prevalence <= 1:
        raise ValueError(f"prevalence = {prevalence}; a share from 0 to 1 was expected")


def render_some(indices: range, size: int, seed: int, prevalence: float) -> list[Radiograph]:
    """Several images, in order; the arguments are those of :func:`render`."""
    return [render(index, size, seed=seed, prevalence=prevalence) for index in indices]
