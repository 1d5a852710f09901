import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
from cxrlib.datasets.images import Reader
from cxrlib.datasets.parts import divide

IDS = np.array(["a", "b", "c"])


def divided(folder, patients, boxed=(), parts=([0], [1], [2])):
    paths = {name: str(folder / f"{name}.png") for name in IDS}
    for path in paths.values():
        Image.new("L", (40, 40)).save(path)
    boxes = pd.DataFrame([[name, 0, 0.0, 0.0, 1.0, 1.0] for name in boxed], columns=BOX_COLUMNS)
    reader = Reader(paths, 32, "restore it")
    dataset = CXRDataset("demo", IDS, patients, np.zeros((3, 14)), boxes, 32, reader)
    indices = [np.array(part, int) for part in parts]
    return divide(dataset, reader, indices, ["a note"], folder, cache=False)


def test_parts_are_as_asked(tmp_path):
    split = divided(tmp_path, IDS, boxed=["c"])
    parts = (split.train, split.val, split.test)
    assert [part.image_ids.tolist() for part in parts] == [["a"], ["b"], ["c"]]
    assert split.notes == ("a note",)
    assert divided(tmp_path, IDS).data_hash != split.data_hash


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": ["1", "2", "1"]}, "1 patients are in both 'train' and 'test'"),
        ({"patients": IDS, "boxed": ["a"]}, "'train' holds images with boxes"),
        ({"patients": IDS, "parts": ([0], [], [2])}, r"left for 'val' .* \(a note\); add images"),
    ],
)
def test_leaks_and_empty_parts_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        divided(tmp_path, **arguments)
