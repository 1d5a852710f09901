"""What anyone may hand over (arrays, lists, tensors) as arrays that are known to be good."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor, bfloat16

from cxrlib.findings import FINDINGS, finding_index


def finding_columns(findings: Sequence[str]) -> list[int]:
    """The place of each named finding among the 14.

    Args:
        findings: names in any known spelling, each finding once.

    Raises:
        ValueError: a name is unknown (the nearest is told), two are the same, or there is none.

    >>> finding_columns(["Mass", "Infiltrate"])
    [4, 3]
    """
    columns = [finding_index(name) for name in findings]
    for position, column in enumerate(columns):
        if column in columns[:position]:
            first = findings[columns.index(column)]
            raise ValueError(
                f"findings name {FINDINGS[column]} twice, as {str(first)!r} and as "
                f"{str(findings[position])!r}; each finding has one column"
            )
    if not columns:
        raise ValueError(f"findings are empty; at least one was expected of {', '.join(FINDINGS)}")
    return columns


def unique_names(what: str, ids: Iterable[str]) -> np.ndarray:
    """Names of images as an array of strings.

    Args:
        what: they are called in an error.
        ids: the names, each once; possibly none.

    Returns:
        (N,) strings.

    Raises:
        ValueError: they are no strings, or one is there twice.

    >>> unique_names("image_ids", ["a", "a"])
    Traceback (most recent call last):
    ...
    ValueError: image_ids: 1 (such as a) given before; keep one prediction for each image
    """
    names = list(ids)
    kind = pd.api.types.infer_dtype(names, skipna=False)
    if kind not in ("string", "empty"):
        raise ValueError(
            f"{what} are of type {kind}; strings were expected, such as '00000013_005'"
        )
    repeated = pd.Index(names).duplicated()
    if repeated.any():
        raise ValueError(
            f"{what}: {some(np.array(names, str)[repeated])} given before; keep one prediction for "
            "each image"
        )
    return np.array(names, str)


def unit_numbers(what: str, values: ArrayLike | Tensor, shape: Sequence[int]) -> np.ndarray:
    """Numbers from 0 to 1 as an array of floats.

    Args:
        what: they are called in an error.
        values: nested lists, array or tensor, of floats, integers or booleans.
        shape: the first lengths of the array, images and findings.

    Returns:
        a float array; of a float array, the array itself.

    Raises:
        ValueError: they are no numbers, have another shape, or are not finite or not in 0 to 1.

    >>> unit_numbers("scores", [[0.5, 3.0]], (1, 2))
    Traceback (most recent call last):
    ...
    ValueError: scores range from 0.5 to 3; 0 to 1 was expected: apply a sigmoid, \
1 / (1 + np.exp(-x)), to log-odds, or np.clip(x, 0, 1) to what exceeds by rounding
    """
    array = _floats(what, values)
    given = array.shape
    if given[: len(shape)] != tuple(shape):
        raise ValueError(
            f"{what} have shape {given}; {shape[0]} images x {shape[1]} findings were expected: "
            "one id for each row, one name in findings for each column"
        )
    if array.size:
        _refuse_outside(what, array)
    return array


def _floats(what: str, values: ArrayLike | Tensor) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == bfloat16 else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{what} are not one rectangular array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} are of type {array.dtype}; numbers from 0 to 1 were expected")
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _refuse_outside(what: str, values: np.ndarray) -> None:
    low, high = values.min(), values.max()  # NaN if any value is
    if not np.isfinite([low, high]).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{bad} of {values.size} {what} are NaN or infinite; numbers from 0 to 1 were "
            "expected: a finding that the model does not predict is left out of findings"
        )
    if low < 0 or high > 1:
        raise ValueError(
            f"{what} range from {low:.9g} to {high:.9g}; 0 to 1 was expected: apply a sigmoid, "
            "1 / (1 + np.exp(-x)), to log-odds, or np.clip(x, 0, 1) to what exceeds by rounding"
        )


def some(ids: np.ndarray) -> str:
    """How many, and three of them.

    >>> some(np.array(["a", "b", "c", "d"]))
    '4 (such as a, b, c)'
    """
    return f"{len(ids)} (such as {', '.join(ids[:3])})"


def told(error: Exception) -> str:
    """What an error says, on one line of at most 300 characters; its kind if it says nothing.

    Damaged files make other programs quote them at length.

    >>> told(ValueError("one\\n  two")), told(EOFError())
    ('one two', 'EOFError')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
