"""The dials of an experiment on the phantom."""

from dataclasses import dataclass
from typing import Any, Literal

from cxrlib.parameters import nearest
from cxrlib.phantom.devices import CONFOUNDERS

_RANGES = {
    "prevalence": (0, 1),
    "cooccurrence": (0, 1),
    "lesion_size": (0.3, 2),
    "lesion_contrast": (0, 4),
    "foci": (1, 8),
    "label_noise": (0, 0.5),
    "dose": (0.01, 100),
    **dict.fromkeys(CONFOUNDERS, (0, 1)),
}
_OTHERWISE = {"prevalence": "official", "foci": None}


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What an experiment on the phantom sets; the defaults are a natural population.

    Attributes:
        prevalence: of each finding, 0 to 1, or ``"official"``: as labelled in ChestX-ray14.
        cooccurrence: how closely findings go with each other and with the projection, from 0 (not
            at all) to 1 (as in the official labels).
        lesion_size: scale of widths and heights, 0.3 to 2.
        lesion_contrast: scale of densities, 0 to 4; at 0 findings are labelled but cannot be seen,
            except for what they do to heart and diaphragm.
        foci: of focal findings on an image that has them, 1 to 8; None: a natural number.
        label_noise: probability, 0 to 0.5, that a label for training is flipped; the truth stays.
        dose: photons relative to a usual exposure, 0.01 to 100.
        chest_tube, pacemaker, portable_marker, wires: 0 to 1, how closely the device goes with
            pneumothorax, cardiomegaly, edema or infiltration; see
            :func:`cxrlib.phantom.devices.draw_equipment`.

    Raises:
        ValueError: a value is out of its range.
    """

    prevalence: float | Literal["official"] = 0.12
    cooccurrence: float = 1.0
    lesion_size: float = 1.0
    lesion_contrast: float = 1.0
    foci: int | None = None
    label_noise: float = 0.0
    dose: float = 1.0
    chest_tube: float = 0.0
    pacemaker: float = 0.0
    portable_marker: float = 0.0
    wires: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name in _OTHERWISE and value == _OTHERWISE[name]:
                continue
            kinds = (int,) if name == "foci" else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                kind = "whole number" if name == "foci" else "number"
                otherwise = f", or {_OTHERWISE[name]!r}," if name in _OTHERWISE else ""
                raise ValueError(
                    f"{name} = {value!r}; a {kind} from {low} to {high}{otherwise} was expected"
                )


def controls_of(**options: Any) -> Controls:
    """Controls from keyword arguments.

    Raises:
        ValueError: no such control (the nearest one is named), or a value is out of its range.
    """
    for name in options:
        if name not in _RANGES:
            raise ValueError(f"the phantom has no control {name!r}; {nearest(name, list(_RANGES))}")
    return Controls(**options)
