import numpy as np
import pytest

from cxrlib.findings import BOXED, FINDINGS, canonical, encode_labels, finding_index


def test_names_and_order():
    assert len(FINDINGS) == len(set(FINDINGS)) == 14
    assert len(BOXED) == 8
    assert [finding_index(name) for name in FINDINGS] == list(range(14))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Infiltrate", "Infiltration"),
        ("infiltration", "Infiltration"),
        (" Mass ", "Mass"),
        ("Pleural Thickening", "Pleural_Thickening"),
        ("PLEURAL_THICKENING", "Pleural_Thickening"),
        ("Pleural Effusion", "Effusion"),
        ("Pleural_Effusion", "Effusion"),
        ("Pulmonary fibrosis", "Fibrosis"),
        ("edema", "Edema"),
    ],
)
def test_canonical(given, expected):
    assert canonical(given) == expected


def test_canonical_names_the_nearest_finding():
    with pytest.raises(ValueError, match=r"'Noduel' is not a finding; did you mean 'Nodule'\?"):
        canonical("Noduel")


def test_canonical_without_a_near_finding_still_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"'' is not a finding\. Valid: Atelectasis, .*Hernia\.$"):
        canonical("")


def test_encode_labels():
    encoded = encode_labels(["Mass|Nodule", "No Finding", "Mass|Nodule", "Hernia"])
    assert encoded.dtype == np.float32
    assert encoded.shape == (4, 14)
    assert [np.flatnonzero(row).tolist() for row in encoded] == [[4, 5], [], [4, 5], [13]]
    encoded[0] = 9
    assert encoded[2].max() == 1  # equal strings do not share memory


def test_encode_labels_of_nothing_and_with_a_separator():
    assert encode_labels([]).shape == (0, 14)
    assert encode_labels(["Mass, Edema"], ",").sum() == 2


@pytest.mark.parametrize("bad", ["", "Mass|", "No Finding|Mass", "Masss"])
def test_encode_labels_refuses(bad):
    with pytest.raises(ValueError, match="is not a finding"):
        encode_labels(["Mass", bad])
