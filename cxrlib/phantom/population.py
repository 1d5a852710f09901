"""Patients made of the phantom: who they are, what they have, and each of their images.

Imports no torch, so that the processes that render start at once and stay small.
"""

import csv
import functools
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from cxrlib.findings import FINDINGS
from cxrlib.parameters import nearest
from cxrlib.phantom import anatomy, devices, lesions, physics, skeleton, texture
from cxrlib.phantom.brush import Brush, prepare
from cxrlib.phantom.chest import Chest, Scene, draw_chest, resample
from cxrlib.phantom.controls import Controls, controls_of
from cxrlib.phantom.targets import Target

CHRONIC = ("Cardiomegaly", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
"""Findings that a patient has on all of his images or on none."""

PERSISTENCE = 0.5
"""Share of a patient's own, unchanging part in the latent variable of every other finding."""

_VISITS = (1, 1, 2, 3, 1, 4)  # images per patient, over and over
_PATIENT_OF = np.repeat(np.arange(len(_VISITS)), _VISITS)
_BUILD, _VISIT, _LABELS, _LESIONS, _RENDER, _DEVICES, _FLIPS = range(7)  # streams that never touch


@dataclass(frozen=True)
class Radiograph:
    """One phantom image and all that is known of it.

    Attributes:
        pixels: uint8 (size, size).
        masks: bool (14, size, size), the pixels of each finding.
        labels: float32 (14,), 0/1, the truth.
        training_labels: float32 (14,), 0/1, the same unless ``label_noise`` has flipped some.
        patient: number of the patient.
        anatomy: bool (size, size) each: ``lungs``, ``heart``, ``mediastinum``.
        chest: the patient's build, geometry and projection.
        equipment: names of the devices on the image.
    """

    pixels: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    training_labels: np.ndarray
    patient: int
    anatomy: dict[str, np.ndarray]
    chest: Chest
    equipment: frozenset[str]


def patient_of(index: int) -> int:
    """Number of the patient an image is of; a patient has one to four images."""
    cycle, rest = divmod(index, len(_PATIENT_OF))
    return int(cycle * len(_VISITS) + _PATIENT_OF[rest])


@functools.cache
def official_labels() -> tuple[np.ndarray, np.ndarray]:
    """Prevalences (15,) and tetrachoric correlations (15, 15) of the official labels.

    In the order of :data:`~cxrlib.findings.FINDINGS`, then the AP projection. Of all 112,120
    images: each correlation is that of two normal variables which, cut at the prevalences, give
    the official number of images with both.
    """
    file = resources.files("cxrlib.phantom") / "official_labels.csv"
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    table = np.array([row[1:] for row in rows[1:]], float)
    return table[:, 0], table[:, 1:]


@functools.cache
def _roots(cooccurrence: float) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of the covariance of the latent variables, for patient and visit.

    An acute finding's variable is sqrt(PERSISTENCE) times the patient's part plus the visit's; what
    is chronic has no visit's part. Covariances of a chronic and an acute finding are therefore
    divided by sqrt(PERSISTENCE) beforehand, so that the sum has the official correlations.
    """
    correlation = cooccurrence * official_labels()[1] + (1 - cooccurrence) * np.eye(15)
    chronic = np.append(np.isin(FINDINGS, CHRONIC), False)
    mixed = chronic[:, None] != chronic[None]
    patient = np.where(mixed, correlation / np.sqrt(PERSISTENCE), correlation)
    return _root(patient), _root(correlation * ~(chronic[:, None] | chronic[None]))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(0, None))


def draw_labels(
    patient: np.random.Generator, visit: np.random.Generator, controls: Controls
) -> tuple[np.ndarray, bool]:
    """Which findings an image has, and whether it is an AP projection.

    Args:
        patient: draws what does not change between visits.
        visit: draws the rest.
        controls: give prevalence and co-occurrence.

    Returns:
        bool (14,), and a bool.
    """
    of_patient, of_visit = _roots(controls.cooccurrence)
    own, new = of_patient @ patient.standard_normal(15), of_visit @ visit.standard_normal(15)
    chronic = np.append(np.isin(FINDINGS, CHRONIC), False)
    latent = np.where(chronic, own, PERSISTENCE**0.5 * own + (1 - PERSISTENCE) ** 0.5 * new)
    prevalence = official_labels()[0].copy()
    if controls.prevalence != "official":
        prevalence[:-1] = controls.prevalence
    present = latent < special.ndtri(prevalence)
    return present[:-1], bool(present[-1])


def labels_of(index: int, seed: int, controls: Controls) -> tuple[np.ndarray, bool]:
    """What :func:`draw_labels` gives for one image of the population of a seed.

    >>> labels_of(3, 0, Controls())[1]
    False
    """
    return draw_labels(
        np.random.default_rng([seed, _LABELS, patient_of(index), 0]),
        np.random.default_rng([seed, _LABELS, index, 1]),
        controls,
    )


def render(
    index: int,
    size: int,
    *,
    seed: int = 0,
    findings: Collection[str] | None = None,
    **options: Any,
) -> Radiograph:
    """Draw one image.

    Args:
        index: which image, 0 or more.
        size: pixels per side, 64 to 1024; the same index at two sizes is the same patient and day.
        seed: of the population.
        findings: what the patient has, whatever the prevalence; None: drawn. The same index without
            a finding shows the same chest without it.
        options: of :class:`Controls`.

    Returns:
        the image with all that is known of it; equal arguments give equal bytes.

    Raises:
        ValueError: an argument is out of its range.

    >>> image = render(3, 64, lesion_size=0.5)
    >>> image.pixels.shape, image.masks.shape, image.patient, sorted(image.anatomy)
    ((64, 64), (14, 64, 64), 2, ['heart', 'lungs', 'mediastinum'])
    """
    check_size(size)
    for name in findings or ():
        if name not in FINDINGS:
            raise ValueError(f"no finding {name!r}; {nearest(name, list(FINDINGS))}")
    return _render(index, size, seed, controls_of(**options), findings)


def check_size(size: int) -> None:
    """Refuse a size out of range."""
    if not 64 <= size <= 1024:
        raise ValueError(f"image_size = {size}; the phantom has 64 to 1024 pixels per side")


def _render(
    index: int,
    size: int,
    seed: int,
    controls: Controls,
    findings: Collection[str] | None = None,
) -> Radiograph:
    ready = prepared(index, seed, controls, findings)
    chest, names, draws = ready.chest, ready.names, ready.draws
    render, gear, flips = (
        np.random.default_rng([seed, key, index]) for key in (_RENDER, _DEVICES, _FLIPS)
    )
    scene = project(chest, ready.build, render, size)
    scale = controls.lesion_size, controls.lesion_contrast
    brush = Brush(scene, draws, *scale, controls.foci, ready.plan)
    masks = np.zeros((len(FINDINGS), size, size), bool)
    for name in names:
        masks[FINDINGS.index(name)] = lesions.LESIONS[name](brush)
    air = masks[FINDINGS.index("Pneumothorax")]
    side = (
        int(air[:, size // 2 :].sum() > air[:, : size // 2].sum())
        if air.any()
        else int(gear.integers(2))
    )
    strength = {name: getattr(controls, name) for name in devices.CONFOUNDERS}
    equipment = devices.draw_equipment(gear, chest.ap, set(names), strength, side)
    devices.attach(scene, equipment, gear)
    pixels = physics.radiograph(scene, render, controls.dose)
    labels = masks.any(axis=(1, 2))
    return Radiograph(
        devices.burn_in(pixels, equipment, gear),
        masks,
        np.asarray(labels, np.float32),
        (labels ^ (flips.random(14) < controls.label_noise)).astype(np.float32),
        patient_of(index),
        {"lungs": scene.lungs, "heart": scene.heart, "mediastinum": scene.mediastinum},
        chest,
        equipment.names,
    )


class Prepared(NamedTuple):
    """A patient on the day of an image, with the organs that findings move where they will be."""

    chest: Chest
    names: list[str]  # of the findings to draw
    plan: dict[str, Target]  # of those the chest was fitted to
    build: np.random.Generator  # has drawn the chest; goes on with the skeleton
    draws: np.random.Generator  # has drawn the targets; goes on with the findings


def prepared(
    index: int, seed: int, controls: Controls, findings: Collection[str] | None = None
) -> Prepared:
    """What of an image is known before it is drawn; the arguments are those of :func:`render`."""
    build = np.random.default_rng([seed, _BUILD, patient_of(index)])
    visit, draws = (np.random.default_rng([seed, key, index]) for key in (_VISIT, _LESIONS))
    present, ap = labels_of(index, seed, controls)
    chest = draw_chest(build, visit, ap)
    names = [name for name, here in zip(FINDINGS, present, strict=True) if here]
    if findings is not None:
        names = [name for name in FINDINGS if name in findings]
    plan = {
        name: target
        for name in names
        if (target := prepare(name, chest, draws, controls.lesion_size)) is not None
    }
    return Prepared(chest, names, plan, build, draws)


def project(
    chest: Chest, patient: np.random.Generator, visit: np.random.Generator, size: int
) -> Scene:
    """Path lengths through a healthy chest.

    Args:
        chest: the patient.
        patient: draws skeleton and vessels, which stay.
        visit: draws the lung's texture.
        size: pixels per side.
    """
    parts = anatomy.soft_parts(chest, size)
    # The muscles and fat of the trunk are not quite even.
    coarse = visit.standard_normal((2, 44, 44), dtype=np.float32)
    uneven = 0.25 * resample(coarse[0, ::2, ::2], size) + 0.2 * resample(coarse[1], size)
    parts["tissue"] += uneven * (parts["tissue"] / 6).clip(0, 1)
    parts["tissue"] -= anatomy.bowel_gas(chest, parts["x"], parts["y"], visit)
    return Scene(
        chest,
        **parts,
        bone=skeleton.bones(chest, patient, size),
        vessels=texture.vessels(chest, patient, size),
        device=np.zeros((size, size), np.float32),
        texture=texture.clustered_lumps(visit, size),
        grain=resample(visit.standard_normal((256, 256), dtype=np.float32), size),
    )


def render_some(indices: range, size: int, seed: int, controls: Controls) -> list[Radiograph]:
    """Several images, in order; the arguments are those of :func:`render`."""
    return [_render(index, size, seed, controls) for index in indices]
