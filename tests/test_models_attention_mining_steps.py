"""What each step of attention mining finds and claims, and mining from a finished run's network."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split
from cxrlib.files import write_json
from cxrlib.models import AttentionMining, create_model
from cxrlib.models.mining_stages import fit_stages, load_base
from cxrlib.models.mining_steps import (
    as_many,
    claimed,
    collect_steps,
    covered,
    measure_steps,
    predict_steps,
)
from cxrlib.phantom import dataset as phantom
from cxrlib.predictions import Predictions

TINY = {"encoder": "resnet18", "width": 16}


def boxed(boxes: list[tuple]) -> CXRDataset:
    ids = sorted({row[0] for row in boxes})
    labels = np.zeros((len(ids), 14))
    for image, finding, *_ in boxes:
        labels[ids.index(image), finding] = 1
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
    return CXRDataset("toy", np.array(ids), np.array(ids), labels, table, 32, np.load)


def told(maps: np.ndarray, dataset: CXRDataset) -> Predictions:
    """Predictions with one map for all findings of an image: (N, h, w)."""
    N = len(dataset)
    return Predictions.from_arrays(
        dataset.image_ids,
        np.random.default_rng(0).random((N, 14)),
        map_ids=dataset.image_ids,
        maps=np.repeat(maps[:, None], 14, axis=1),
        frame=32,
    )


@pytest.fixture
def dataset() -> CXRDataset:
    """Masses in the left half, the right half and, of a third patient, in one quarter."""
    boxes = [("a", 4, 0, 0, 0.5, 1), ("b", 4, 0.5, 0, 1, 1), ("c", 4, 0, 0, 0.5, 0.5)]
    return boxed(boxes)


def numbers(table: pd.DataFrame, metric: str, part: str = "localization") -> list[float]:
    chosen = table.query("metric == @metric and part == @part and finding == 'Mass'")
    return chosen.sort_values("step")["value"].tolist()


def test_found_and_claimed_by_hand(dataset):
    first, second = np.zeros((2, 3, 4, 4), np.float32)
    first[:, 0, 0] = 1.0  # one cell of 16: 1/8 of a's truth, none of b's, 1/4 of c's
    second[:, 3, :] = 0.3  # too faint
    second[:, :, 3] = 0.7  # a column: of b's truth a half
    steps = [told(first, dataset), told(second, dataset)]
    table = measure_steps(steps, dataset, replicates=20)
    found = [np.mean([1 / 8, 0, 1 / 4]), np.mean([1 / 8, 1 / 2, 1 / 4])]
    assert numbers(table, "found") == pytest.approx(found)
    assert numbers(table, "precision") == pytest.approx([2 / 3, np.mean([1 / 5, 4 / 5, 1 / 5])])
    assert numbers(table, "found", "random") == pytest.approx([1 / 16, 5 / 16])
    area = np.mean([1 / 2, 1 / 2, 1 / 4])
    assert numbers(table, "precision", "random") == pytest.approx([area, area])
    best = [np.mean([1 / 8, 1 / 8, 1 / 4]), np.mean([5 / 8, 5 / 8, 1])]
    assert numbers(table, "found", "grid_ceiling") == pytest.approx(best)
    macro = table.query("finding == 'macro' and metric == 'found' and part == 'localization'")
    assert macro["value"].tolist() == pytest.approx(found) and macro["n"].tolist() == [3, 3]
    nodule = table.query("finding == 'Nodule' and metric == 'found'")
    assert nodule["value"].isna().all() and (nodule["n"] == 0).all()


def test_the_location_prior_never_sees_its_own_patient(dataset):
    """Of the others, two thirds of what is claimed for b lie in the left half: it finds nothing."""
    maps = np.zeros((3, 4, 4), np.float32)
    maps[:, 0, :2] = 1.0
    table = measure_steps([told(maps, dataset)], dataset, replicates=20)
    # a: c and b tie in the upper half, c's cells come first; c: likewise of a's; b: a and c agree.
    assert numbers(table, "found", "location_prior") == pytest.approx([np.mean([2 / 8, 0, 2 / 4])])


def test_what_is_claimed_only_grows_and_controls_are_as_large():
    maps = np.random.default_rng(0).random((4, 6, 5, 5))
    region = claimed(maps, 0.8)
    assert (region[1:] >= region[:-1]).all() and (region[-1] == (maps >= 0.8).any(0)).all()
    cells = region[-1].sum((1, 2))
    other = as_many(np.random.default_rng(1).random((6, 5, 5)), cells)
    assert set(np.unique(other)) == {0, 1} and (other.sum((1, 2)) == cells).all()
    assert np.isnan(covered(region[-1], np.zeros((6, 5, 5)))).all()


def test_a_step_by_itself_is_what_the_model_says_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path))
    test = phantom.load(64, n_train=8, n_val=8, n_test=8).test
    torch.manual_seed(0)
    model = create_model("attention_mining", steps=1, **TINY)
    with torch.no_grad():
        for weights in model.networks[1].parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    model.eval()
    images = torch.stack([test[i].image for i in range(len(test))])
    with torch.no_grad():
        single = model.by_step(images)
    mapped = torch.from_numpy(np.isin(test.image_ids, test.boxes["image_id"]))
    for t, of in enumerate(predict_steps(model, test, batch_size=3, accelerator="cpu")):
        expected = single.logits[t].sigmoid()
        torch.testing.assert_close(torch.from_numpy(of.scores), expected, atol=1e-5, rtol=0)
        maps = torch.from_numpy(of.maps).float()
        torch.testing.assert_close(maps, single.maps[t, mapped], atol=2e-3, rtol=0)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=32, n_val=8, n_test=12)


def trained(split: Split, folder, steps: int, base=None) -> AttentionMining:
    torch.manual_seed(0)
    model = AttentionMining(steps=steps, learning_rate=1e-2, **TINY)
    folder.mkdir(exist_ok=True)
    schedule = {"epochs": 1, "mining_epochs": 1, "batch_size": 8, "accelerator": "cpu"}
    history = fit_stages(model, split, folder, **schedule, base=base)
    assert history["stage"].tolist() == list(range(0 if base is None else 1, steps + 1))
    return model


def finished(folder, split: Split) -> None:
    decides = {"data_hash": split.data_hash, "split_hash": split.split_hash}
    write_json(folder / "metrics.json", {})
    write_json(folder / "params.json", {"variant": "msa", "seed": 3})
    write_json(
        folder / "environment.json",
        {"decides": decides | {"source": "s"}, "key": "k", "git_commit": "c"},
    )


def test_mining_from_a_finished_base_network_is_mining_from_ones_own(split, tmp_path):
    trained(split, tmp_path / "base", steps=0)
    finished(tmp_path / "base", split)
    base = load_base(str(tmp_path / "base"), split)
    assert base.key == "k"
    own = trained(split, tmp_path / "own", steps=1)
    taken = trained(split, tmp_path / "taken", steps=1, base=base.model)
    for weights, others in zip(own.parameters(), taken.parameters(), strict=True):
        assert torch.equal(weights, others)


def test_a_base_network_of_other_images_is_refused(split, tmp_path):
    trained(split, tmp_path / "base", steps=0)
    finished(tmp_path / "base", split)
    with pytest.raises(ValueError, match=r"trained on other images .data_hash .* same dataset"):
        load_base(str(tmp_path / "base"), replace(split, data_hash="other"))
    other = Split(split.train, split.test, split.val, split.data_hash)
    with pytest.raises(ValueError, match="split_hash"):
        load_base(str(tmp_path / "base"), other)


def test_tables_of_runs_are_gathered(split, tmp_path):
    finished(make(tmp_path / "one"), split)
    make(tmp_path / "unfinished")
    for name in ("one", "unfinished"):
        rows = [(0, "auroc", "mean"), (0, "auroc", "Mass"), (1, "found", "Mass")]
        steps = pd.DataFrame(rows, columns=["step", "metric", "finding"])
        steps.to_csv(tmp_path / name / "steps.csv", index=False)
    table = collect_steps(tmp_path, ["cam", "msa"])
    assert table[["variant", "seed", "source", "commit"]].drop_duplicates().values.tolist() == [
        ["msa", 3, "s", "c"]
    ]
    assert table["step"].tolist() == [0, 1] and table.columns[0] == "variant"
    for folder, variant in ((tmp_path / "unfinished", "msa"), (tmp_path, "am")):
        with pytest.raises(FileNotFoundError, match=rf"no finished run of {variant} with a steps"):
            collect_steps(folder, [variant])


def make(folder):
    folder.mkdir()
    return folder
