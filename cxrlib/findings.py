"""The 14 findings of ChestX-ray14: one canonical spelling, one order, one encoding.

Source of the names and their order: Wang et al., "ChestX-ray8", CVPR 2017, and the release notes of
ChestX-ray14. The official box table spells Infiltration as ``Infiltrate``.
"""

import difflib
from collections.abc import Iterable

import numpy as np

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The 14 findings; a label's column, a logit's column and a map's channel are the index in here."""

BOXED: tuple[str, ...] = FINDINGS[:8]
"""The eight findings for which ChestX-ray14 publishes boxes."""

NO_FINDING = "No Finding"
_ALIASES = {
    "infiltrate": "Infiltration",  # the box table of ChestX-ray14
    "pleural effusion": "Effusion",  # CheXpert, VinDr-CXR
    "pulmonary fibrosis": "Fibrosis",  # VinDr-CXR
}
_CANONICAL = {name.lower().replace("_", " "): name for name in FINDINGS} | _ALIASES


def canonical(name: str) -> str:
    """The canonical spelling of a finding.

    Args:
        name: a spelling used by some release, in any case, with spaces or underscores, e.g.
            ``"Infiltrate"`` or ``"pleural thickening"``.

    Raises:
        ValueError: the name is not one of the 14 findings; the message names the nearest one.

    >>> canonical("Infiltrate")
    'Infiltration'
    """
    key = name.strip().lower().replace("_", " ")
    if key not in _CANONICAL:
        close = difflib.get_close_matches(key, _CANONICAL, n=1)
        hint = f"; did you mean {_CANONICAL[close[0]]!r}?" if close else "."
        raise ValueError(f"{name!r} is not a finding{hint} Valid: {', '.join(FINDINGS)}.")
    return _CANONICAL[key]


def finding_index(name: str) -> int:
    """Column of a finding, 0 to 13.

    >>> finding_index("Mass")
    4
    """
    return FINDINGS.index(canonical(name))


def encode_labels(label_strings: Iterable[str], separator: str = "|") -> np.ndarray:
    """Label strings as a 0/1 matrix.

    Args:
        label_strings: one string per image: findings joined by ``separator``, or ``"No Finding"``.
        separator: what joins the findings.

    Returns:
        float32 (N, 14), columns in the order of :data:`FINDINGS`.

    Raises:
        ValueError: a label is not a finding.

    >>> encode_labels(["Mass|Nodule", "No Finding"]).sum(axis=1)
    array([2., 0.], dtype=float32)
    """
    strings = list(label_strings)
    # 112,120 images hold fewer than a thousand distinct strings: encode each once.
    distinct = {text: _encode_one(text, separator) for text in set(strings)}
    return np.array([distinct[text] for text in strings], np.float32).reshape(-1, len(FINDINGS))


def _encode_one(text: str, separator: str) -> np.ndarray:
    row = np.zeros(len(FINDINGS), np.float32)
    if text.strip() != NO_FINDING:
        row[[finding_index(name) for name in text.split(separator)]] = 1
    return row
