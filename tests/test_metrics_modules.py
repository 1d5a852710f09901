import json
import pickle
import socket

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing import spawn
from torch.utils.data import DataLoader
from two_processes import (
    BOXED,
    DATASET,
    FAST,
    GRID,
    MAPS,
    SCORES,
    SIZE,
    N,
    feed,
    make_dataset,
    make_outputs,
    run_process,
    shares,
)

from cxrlib.findings import FINDINGS
from cxrlib.metrics import evaluate
from cxrlib.metrics.modules import TOLERANCE, ClassificationScores, PredictionScores
from cxrlib.predictions import Predictions


def scored_at_once(scores=SCORES, maps=MAPS):
    """What one process gives that has all predictions before it."""
    predictions = Predictions.from_arrays(
        DATASET.image_ids,
        scores,
        map_ids=DATASET.image_ids[BOXED],
        maps=maps[BOXED].half(),
        frame=SIZE,
    )
    return evaluate(predictions, DATASET, **FAST)


@pytest.fixture(scope="module")
def expected():
    return scored_at_once()


@settings(max_examples=4, deadline=None)
@given(st.permutations(range(N)), st.integers(1, N))
def test_neither_order_nor_batch_size_matters(expected, order, batch):
    assert feed(PredictionScores(DATASET, **FAST), order, batch).compute() == expected


def test_classification_alone_gives_that_part(expected):
    metric = feed(ClassificationScores(DATASET, **FAST), range(N))
    assert metric.compute() == expected["classification"]


def test_a_dataset_without_boxes_has_no_maps_to_keep():
    dataset = make_dataset(boxed=[])
    metric = feed(PredictionScores(dataset, **FAST), range(N))
    assert metric.maps == []
    predictions = Predictions.from_arrays(dataset.image_ids, SCORES)
    assert metric.compute() == evaluate(predictions, dataset, **FAST)
    assert metric.compute()["localization"]["pointing"]["micro"]["n"] == 0


def test_the_frame_and_fewer_findings_are_passed_on():
    names = ["Mass", "Infiltrate", "Cardiomegaly"]
    predictions = Predictions.from_arrays(
        DATASET.image_ids,
        SCORES[:, :3],
        findings=names,
        map_ids=DATASET.image_ids[BOXED],
        maps=MAPS[BOXED, :3].half(),
        frame=SIZE,
    )
    metric = PredictionScores(DATASET, 16, findings=names, **FAST)
    computed = feed(metric, range(N), scores=SCORES[:, :3], maps=MAPS[:, :3]).compute()
    assert computed == evaluate(predictions, DATASET, 16, **FAST)
    assert computed["classification"]["auroc"]["per_finding"]["Edema"]["value"] is None
    assert computed["protocols"]["pointing"]["frame"] == 16


def test_forward_only_collects(expected):
    metric = PredictionScores(DATASET, **FAST)
    for index in torch.arange(N).split(7):
        assert metric(index, SCORES[index], MAPS[index]) is None
    assert metric.compute() == expected


def test_reset_forgets_and_compute_does_not(expected):
    metric = feed(PredictionScores(DATASET, **FAST), range(20))
    metric.update(torch.arange(0), SCORES[:0], MAPS[:0])
    feed(metric, range(20, N))
    assert metric.compute() == expected
    metric.reset()
    assert metric.metric_state == {"index": [], "scores": [], "map_index": [], "maps": []}
    scores, maps = make_outputs(seed=2)
    again = feed(metric, range(N), scores=scores, maps=maps).compute()
    assert again == scored_at_once(scores, maps) != expected


def test_parts_can_be_merged_and_sent_to_another_process(expected):
    one = feed(PredictionScores(DATASET, **FAST), range(11))
    other = feed(pickle.loads(pickle.dumps(one)), range(11, N))
    assert other.compute() == expected
    rest = feed(PredictionScores(DATASET, **FAST), range(11, N))
    one.merge_state(rest)
    assert one.compute() == expected


def test_states_are_small_and_hold_on_to_nothing(expected):
    metric = PredictionScores(DATASET, **FAST)
    index, scores, maps = torch.arange(N), SCORES.clone(), MAPS.clone()
    metric.update(index, scores, maps)
    for reused in (index, scores, maps):  # a loop may write the next batch into the same memory
        reused.zero_()
    two = torch.arange(2)
    metric.update(two, SCORES.clone().requires_grad_()[two], MAPS.clone().requires_grad_()[two])
    for state in metric.metric_state.values():
        assert len(state) == 2
        for part in state:
            assert not part.requires_grad and part.device.type == "cpu"
            assert part.untyped_storage().nbytes() == part.numel() * part.itemsize
    assert [part.shape for part in metric.maps] == [(n, 14, GRID, GRID) for n in (len(BOXED), 1)]
    assert [part.dtype for part in metric.maps] == [torch.float16, torch.float16]
    assert metric.compute() == expected


def test_of_repeats_the_last_counts_and_a_jump_is_refused(expected):
    metric = feed(PredictionScores(DATASET, **FAST), [4, 8], scores=SCORES * (1 - TOLERANCE / 2))
    assert feed(metric, range(N)).compute() == expected
    feed(metric, [4, 8, 9], scores=1 - SCORES)
    with pytest.raises(ValueError, match=r"differ by up to .*: 3 \(such as i04, i08, i09\); call"):
        metric.compute()


@pytest.mark.parametrize("kind", [ClassificationScores, PredictionScores])
def test_an_image_that_was_never_seen_is_refused(kind):
    metric = feed(kind(DATASET, **FAST), [0, 1, 2, *range(7, N)])
    message = r"never saw 4 \(such as i03, i04, i05\) of the 23 images of 'toy'; call it for every"
    with pytest.raises(ValueError, match=message):
        metric.compute()
    feed(metric, range(3, 7)).compute()
    with (
        pytest.warns(UserWarning, match="before the ``update``"),
        pytest.raises(ValueError, match="never saw 23"),
    ):
        kind(DATASET).compute()


BATCH = {"index": torch.arange(3), "scores": SCORES[:3], "maps": MAPS[:3]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": torch.arange(3.0)}, r"index is torch.float32 of shape \(3,\); integers"),
        ({"index": torch.ones(3, dtype=torch.bool)}, "index is torch.bool"),
        ({"index": torch.tensor(1)}, r"index is torch.int64 of shape \(\)"),
        ({"index": torch.tensor([0, 1, N])}, "index holds 23, but 'toy' has 23 images: 0 to 22"),
        ({"index": torch.tensor([0, -1, 2])}, "index holds -1"),
        ({"index": torch.arange(2)}, r"scores have shape \(3, 14\); \(2, 14\) was expected"),
        ({"scores": SCORES[:3, :5]}, r"scores have shape \(3, 5\); \(3, 14\) was expected"),
        ({"scores": SCORES[:3, :, None]}, r"scores have shape \(3, 14, 1\)"),
        ({"scores": SCORES[:3] * 4 - 2}, "scores range from .* apply a sigmoid"),
        ({"scores": SCORES[:3] * torch.nan}, "42 of 42 scores are NaN"),
        ({"maps": MAPS[:2]}, r"maps have shape \(2, 14, 8, 8\); \(3, 14, h, h\) was expected"),
        ({"maps": MAPS[:3, :, :5]}, r"maps have shape \(3, 14, 5, 8\)"),
        ({"maps": MAPS[:3, 0]}, r"maps have shape \(3, 8, 8\)"),
        ({"maps": torch.tensor(1)}, r"maps have shape \(\)"),
        ({"maps": torch.rand(3, 14, 33, 33)}, "at most the frame, 32 px"),
        ({"maps": MAPS[:3] + 1}, "maps range from .* 0 to 1 was expected"),
        ({"maps": torch.rand(3, 14, 4, 4)}, "maps of 4 x 4 after maps of 8 x 8; one size"),
    ],
)
def test_a_bad_batch_is_refused_and_leaves_no_trace(changed, message):
    metric = feed(PredictionScores(DATASET, **FAST), range(N))
    before = {name: len(state) for name, state in metric.metric_state.items()}
    with pytest.raises(ValueError, match=message):
        metric.update(**(BATCH | changed))
    assert {name: len(state) for name, state in metric.metric_state.items()} == before


def test_maps_of_images_without_boxes_are_not_read():
    maps = MAPS.clone()
    maps[[index for index in range(N) if index not in BOXED]] = torch.nan
    assert len(feed(PredictionScores(DATASET), range(N), maps=maps).maps) == 5


@pytest.mark.parametrize("kind", [ClassificationScores, PredictionScores])
def test_bad_arguments_are_refused(kind):
    with pytest.raises(ValueError, match="'toy' has no images; at least one was expected"):
        kind(DATASET.subset(np.array([], int)))
    with pytest.raises(ValueError, match="Hernai"):
        kind(DATASET, findings=[*FINDINGS[:13], "Hernai"])


class Validated(pl.LightningModule):
    """A model whose batches are positions and whose outputs are known."""

    def __init__(self):
        super().__init__()
        self.metric = PredictionScores(DATASET, **FAST)
        self.seen = []

    def validation_step(self, index):
        self.metric.update(index, SCORES[index], MAPS[index])

    def on_validation_epoch_end(self):
        self.seen.append(self.metric.compute())
        self.log("auroc", self.seen[-1]["classification"]["auroc"]["mean"]["value"])
        self.metric.reset()


def test_works_in_a_validation_loop_of_lightning(expected, tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False
    )
    model, batches = Validated(), DataLoader(range(N), batch_size=4)
    for _ in range(2):
        logged = trainer.validate(model, batches, verbose=False)[0]
    assert model.seen == [expected, expected]
    assert logged["auroc"] == pytest.approx(expected["classification"]["auroc"]["mean"]["value"])


def test_two_processes_give_the_numbers_of_one(expected, tmp_path, monkeypatch):
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", loopback)
    spawn(run_process, (str(tmp_path),), nprocs=2)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one == other
    assert one.pop("unseen").startswith("update() never saw 3 (such as i20, i21, i22) of the 23")
    assert one.pop("no batch").startswith("update() never saw 23 (such as i00, i01, i02) of the 23")
    without = Predictions.from_arrays(DATASET.image_ids, SCORES)
    assert one.pop("no boxes") == evaluate(without, make_dataset(boxed=[]), **FAST)
    assert one.pop("labels") == expected["classification"]
    assert list(one) == list(shares(0))
    for name, computed in one.items():
        assert computed == expected, name
