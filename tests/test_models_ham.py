import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cxrlib import training
from cxrlib.datasets.base import Batch, Split
from cxrlib.datasets.boxed import BoxTaught, teach_boxes
from cxrlib.models import create_model, ham_leak, ham_nesting
from cxrlib.models.encoders import resnet
from cxrlib.models.ham import HAM, activation
from cxrlib.models.ham_foreground import ForegroundAttention
from cxrlib.models.ham_losses import (
    any_finding,
    bounded_loss,
    box_loss,
    outside,
    refine,
    rescale,
    union_loss,
)
from cxrlib.models.ham_nesting import nesting, summarise_nesting
from cxrlib.models.ham_presets import PRESETS, HAMParameters
from cxrlib.phantom import dataset as phantom
from cxrlib.pooling import lse_pool
from cxrlib.predictions import Predictions

TINY = {"encoder": "resnet18", "width": 16, "augmentation": "upright"}


def count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


@pytest.fixture(scope="module")
def published() -> HAM:
    return create_model("ham").eval()


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=24, n_val=8, n_test=24)


def attention(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Class attention, attention of abnormality and positive labels: 3 images, 4 findings."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.rand(3, 4, 5, 6, generator=generator, dtype=torch.float64) * 2
    A_abnormal = torch.rand(3, 1, 5, 6, generator=generator, dtype=torch.float64) * 2
    positive = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    return A, A_abnormal, positive


def test_every_part_has_as_many_weights_as_published(published, shared):
    counts = [
        count(part)
        for part in (
            published.encoder,
            published.foreground,
            published.head,
            published.abnormal,
            published.classes,
        )
    ]
    assert counts == [23_508_032, 12_127_244, 11_797_504, 512, 7_168]
    assert count(published) == sum(counts) == 47_440_460
    text = (shared / "fixtures" / "README.md").read_text()
    for number in (*counts, count(published)):
        assert f"{number:,}" in text


def test_maps_have_stride_8(published):
    with torch.inference_mode():
        output = published(torch.rand(1, 1, 128, 192))
    assert output.logits.shape == (1, 14) and output.logits.dtype == torch.float32
    assert output.maps.shape == (1, 14, 16, 24) and output.maps.dtype == torch.float32
    assert output.maps.min() >= 0 and output.maps.max() <= 1
    dilations = [
        [block.conv2.dilation[0] for block in stage]
        for stage in (
            published.encoder.layer1,
            published.encoder.layer2,
            published.encoder.layer3,
            published.encoder.layer4,
        )
    ]
    assert dilations == [[1] * 3, [1] * 4, [2] * 6, [4] * 3]


def test_without_an_output_stride_the_encoder_is_as_before():
    plain = resnet("resnet18", 16, False)
    assert plain.feature_info.reduction() == [4, 8, 16, 32]
    assert plain.conv1.in_channels == 1
    convolutions = [layer for layer in plain.modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.dilation for layer in convolutions} == {(1, 1)}


@pytest.mark.parametrize(("height", "width"), [(60, 64), (64, 65), (0, 64)])
def test_a_size_that_cannot_be_divided_is_refused(height, width):
    with pytest.raises(ValueError, match=rf"{height} x {width} px.*multiple of 8 was expected"):
        HAM(**TINY)(torch.rand(2, 1, height, width))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augmentation": "pylon"}, "'ham' or 'upright' was expected"),
        ({"r": -1}, "r = -1; a number of at least 0"),
        ({"ordinal": -0.1}, "ordinal = -0.1; a number of at least 0"),
        ({"decay_every": 0}, "decay_every = 0; a number of at least 1"),
        ({"width": 24}, "width = 24; a multiple of 16"),
        ({"encoder": "resnet51"}, "did you mean 'resnet50'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HAM(**{"encoder": "resnet18", **arguments})


def test_logits_are_linear_in_pooled_features():
    torch.manual_seed(0)
    model = HAM(**TINY).eval()
    kept = []
    model.head.register_forward_hook(lambda head, inputs, features: kept.append(features))
    levels = model.levels(torch.rand(2, 1, 64, 64))
    f = lse_pool(kept[0], 6.0)  # per channel
    torch.testing.assert_close(levels.logits, f @ model.classes.weight.T)
    torch.testing.assert_close(levels.abnormal, f @ model.abnormal.weight.T)
    naive = torch.einsum("bkhw,ck->bchw", kept[0], model.classes.weight).clamp(min=0)
    torch.testing.assert_close(levels.A, naive)
    assert levels.A.max() > 0


def test_foreground_attention_is_the_published_formula():
    torch.manual_seed(0)
    block, x = ForegroundAttention(16).eval(), torch.randn(2, 16, 5, 6)
    assert torch.equal(block(x), torch.zeros(2, 1, 5, 6))  # gamma starts at 0
    nn.init.constant_(block.gamma, 0.5)
    for b in range(2):
        scores = (x[b] * block.w.weight[0]).sum(0)
        w = scores.exp() / scores.exp().sum()
        context = (x[b] * w).sum((-2, -1))
        W1, W2 = block.g[0].weight, block.g[2].weight
        g = torch.sigmoid(W2 @ (W1 @ context).clamp(min=0))
        u = torch.einsum("ok,khw->ohw", block.u.weight[..., 0, 0], x[b]) * g[:, None, None]
        p = torch.einsum("k,khw->hw", block.p.weight[0, :, 0, 0], u)
        z = torch.sigmoid(block.z(p[None, None]))[0, 0]
        torch.testing.assert_close(block(x)[b, 0], 0.5 * p * z, atol=1e-5, rtol=1e-4)


def test_outside_is_the_published_formula():
    A, A_abnormal, _ = attention()
    T = 1 / (1 + (-100 * (A - 0.75)).exp())
    least = A - (A - A_abnormal).clamp(min=0)
    expected = 1 - (least * T).sum((-2, -1)) / A.sum((-2, -1))
    torch.testing.assert_close(outside(A, A_abnormal), expected)


def test_losses_average_over_positive_images_then_over_findings():
    A, A_abnormal, positive = attention()
    share = outside(A, A_abnormal)
    expected = ((share[0, 0] + share[1, 0]) / 2 + share[0, 1]) / 2
    torch.testing.assert_close(bounded_loss(A, A_abnormal, positive), expected)
    union = torch.stack([A[0, :2].amax(0), A[1, 0]])
    expected = outside(A_abnormal[:2, 0], union).mean()
    torch.testing.assert_close(union_loss(A, A_abnormal, positive), expected)


def test_by_hand():
    """Strong cells hold 2; of a map's two, the other covers one, or one half as strongly."""
    a, b, half = (torch.tensor([values]) for values in ([2.0, 2, 0], [0, 2.0, 2], [0, 1.0, 1]))
    for outer, expected in ((a, 0.0), (b, 0.5), (half, 0.75)):
        assert outside(a, outer).item() == pytest.approx(expected)
    # Too weak to count: T(0.7) = sigmoid(-5), T(0.75) = 1 / 2.
    assert outside(0.35 * a, a).item() == pytest.approx(1 - 1 / (1 + np.exp(5)), abs=1e-6)
    assert outside(0.375 * a, a).item() == pytest.approx(0.5)
    assert outside(0.375 * a, a, sigma=0.5).item() == pytest.approx(0, abs=1e-6)


def test_nested_attention_costs_nothing_and_disjoint_attention_everything():
    A = torch.zeros(2, 3, 4, 4)
    A[:, 0, :2, :2], A[:, 1, 2:, 2:], A[:, 2] = 2.0, 3.0, 5.0
    positive = torch.tensor([[True, True, False]] * 2)
    union = A[:, :2].amax(1, keepdim=True)
    assert bounded_loss(A, union, positive) == 0 and union_loss(A, union, positive) == 0
    # Larger than a finding is allowed to the bounded loss, smaller than the union to the other.
    everywhere, nowhere = torch.full_like(union, 9.0), torch.zeros_like(union)
    assert bounded_loss(A, everywhere, positive) == 0 and union_loss(A, everywhere, positive) > 0.5
    assert bounded_loss(A, nowhere, positive) == 1 and union_loss(A, nowhere, positive) == 0
    elsewhere = torch.where(union > 0, 0.0, 2.0)
    assert bounded_loss(A, elsewhere, positive) == 1 and union_loss(A, elsewhere, positive) == 1


def test_images_without_findings_and_empty_maps_cost_nothing():
    A, A_abnormal, positive = attention()
    for empty in (torch.zeros_like(A).requires_grad_(), A.clone().requires_grad_()):
        nothing = torch.zeros_like(positive) if empty.any() else positive
        loss = bounded_loss(empty, A_abnormal, nothing) + union_loss(empty, 0 * A_abnormal, nothing)
        loss.backward()
        assert loss == 0 and empty.grad.isfinite().all()


def test_only_positive_findings_make_the_union():
    A, A_abnormal, positive = attention()
    changed = A.clone()
    changed[~positive] += 10
    for loss in (bounded_loss, union_loss):
        assert torch.equal(loss(A, A_abnormal, positive), loss(changed, A_abnormal, positive))


def test_box_loss_by_hand():
    A = torch.tensor([[[1.0, 0.5]], [[0.0, 1.0]], [[0.0, 0.0]]])
    masks = torch.tensor([[[1, 0]], [[1, 0]], [[1, 1]]]).bool()
    # First finding, two pairs: (0.25 + 2) / (1.5 + 1 + 1 + 1); second, one pair: 2 / 2.
    expected = (2.25 / 4.5 + 1) / 2
    assert box_loss(A, masks, torch.tensor([7, 7, 2])).item() == pytest.approx(expected)
    assert box_loss(masks.float(), masks, torch.tensor([7, 7, 2])) == 0
    assert box_loss(A[:0], masks[:0], torch.tensor([], dtype=torch.int64)) == 0


def test_gradients_of_the_losses():
    A, A_abnormal, positive = (
        t.requires_grad_() if t.is_floating_point() else t for t in attention()
    )
    for loss in (bounded_loss, union_loss):
        assert torch.autograd.gradcheck(
            lambda A, B, loss=loss: loss(A, B, positive), (A, A_abnormal)
        )
    masks, finding = attention(1)[0][0] > 1, torch.tensor([0, 0, 1, 1])
    assert torch.autograd.gradcheck(
        lambda A: box_loss(refine(A[:, None], (5, 6))[:, 0], masks, finding), (A[0],)
    )


def test_refined_maps_are_nearly_binary():
    maps = torch.rand(2, 3, 4, 4) * 7 + 2
    refined = refine(maps, (32, 32))
    large = F.interpolate(maps, (32, 32), mode="bilinear", align_corners=True)
    low, high = large.amin((-2, -1), keepdim=True), large.amax((-2, -1), keepdim=True)
    x = (large - low) / (high - low)
    clear = (x - 0.4).abs() > 0.07
    assert torch.equal(refined.round()[clear].bool(), (x > 0.4)[clear])
    # The scorer's threshold, 0.469, is 0.999 of the refined map.
    assert torch.equal(
        (refined >= 0.999)[(x - 0.469).abs() > 1e-3], (x > 0.469)[(x - 0.469).abs() > 1e-3]
    )
    assert torch.equal(rescale(torch.full((1, 2, 2), 3.0)), torch.zeros(1, 2, 2))


def test_any_finding():
    nan = torch.nan
    labels = torch.tensor([[0.0, 0], [0, 1], [nan, 1], [1, nan], [nan, 0]])
    expected = torch.tensor([[0.0], [1], [1], [1], [nan]])
    torch.testing.assert_close(any_finding(labels), expected, equal_nan=True)


def step(model: HAM, batch: Batch, monkeypatch) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of a batch outside a trainer, and what the step logs."""
    logged: dict[str, float] = {}
    monkeypatch.setattr(model, "log_dict", lambda losses, **how: logged.update(losses))
    return model.training_step(batch, 0), {
        name: float(value.detach()) for name, value in logged.items()
    }


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    masks = torch.zeros(4, 14, 64, 64, dtype=torch.bool)
    masks[0, 3, 8:40, 16:48], masks[2, 5, 4:20, 4:20] = True, True
    labels = (torch.rand(4, 14) < 0.3).float()
    labels[0, 3] = labels[2, 5] = 1
    return Batch(torch.rand(4, 1, 64, 64), labels, masks)


def test_the_loss_is_the_weighted_sum(batch, monkeypatch):
    torch.manual_seed(0)
    model = HAM(**TINY).eval()
    levels, positive = model.levels(batch.images), batch.labels == 1
    y, any_y = batch.labels, batch.labels.amax(1, keepdim=True)
    abnormal = F.binary_cross_entropy(levels.abnormal.sigmoid(), any_y)
    classes = F.binary_cross_entropy(levels.logits.sigmoid(), y)
    bounded = bounded_loss(levels.A, levels.A_abnormal, positive)
    union = union_loss(levels.A, levels.A_abnormal, positive)
    refined = refine(levels.A, (64, 64))
    pairs = torch.stack([refined[0, 3], refined[2, 5]])
    boxes = box_loss(
        pairs, torch.stack([batch.masks[0, 3], batch.masks[2, 5]]), torch.tensor([3, 5])
    )
    parts = [abnormal, classes, bounded, union, boxes]
    assert all(part > 0 for part in parts)
    weights = [0.01, 1, 0.001, 0.001, 0.5]
    expected = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    loss, logged = step(model, batch, monkeypatch)
    torch.testing.assert_close(loss, expected)
    assert logged["active"] == pytest.approx(
        (levels.A > 0.75).float().mean((-2, -1))[positive].mean().item()
    )

    unbounded = HAM(ordinal=0, **TINY).eval()
    unbounded.load_state_dict(model.state_dict())
    without, logged = step(unbounded, batch._replace(masks=None), monkeypatch)
    torch.testing.assert_close(without, 0.01 * abnormal + classes)
    assert not {"loss_bounded", "loss_union", "loss_box"} & set(logged)


def test_attention_losses_teach_the_features_but_not_the_classifiers(batch):
    torch.manual_seed(0)
    model = HAM(**TINY)
    levels, positive = model.levels(batch.images), batch.labels == 1
    loss = bounded_loss(levels.A, levels.A_abnormal, positive)
    loss = (
        loss
        + union_loss(levels.A, levels.A_abnormal, positive)
        + model.box_loss(levels.A, batch.masks)
    )
    loss.backward()
    assert model.classes.weight.grad is None and model.abnormal.weight.grad is None
    assert model.head[0].weight.grad.abs().sum() > 0
    assert model.encoder.conv1.weight.grad.abs().sum() > 0


def test_every_weight_gets_a_gradient(batch, monkeypatch):
    torch.manual_seed(0)
    model = HAM(**TINY)
    nn.init.constant_(model.foreground.block.gamma, 0.1)
    step(model, batch, monkeypatch)[0].backward()
    assert all(weights.grad is not None for weights in model.parameters())


def test_half_precision_stops_before_the_maps():
    model = HAM(**TINY).eval()
    with torch.autocast("cpu", torch.bfloat16):
        levels = model.levels(torch.rand(2, 1, 64, 64))
    assert {values.dtype for values in levels} == {torch.float32}


def test_all_batch_normalization_can_be_synchronized():
    model = HAM(**TINY)
    plain = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    names = [name for name, part in synced.named_modules() if isinstance(part, nn.SyncBatchNorm)]
    assert names == plain and "foreground.block.z.1" in names
    assert not any(type(part) is nn.BatchNorm2d for part in synced.modules())


def test_activation_maps_are_of_the_detached_classifier():
    features, weight = (
        torch.rand(1, 3, 2, 2, requires_grad=True),
        torch.rand(4, 3, requires_grad=True),
    )
    activation(features, weight).sum().backward()
    assert weight.grad is None and features.grad.abs().sum() > 0


def test_the_papers_augmentation_mirrors_half_of_the_images_with_their_masks():
    torch.manual_seed(0)
    both = torch.zeros(32, 2, 64, 64)
    both[:, :, 20:44, 8:16] = 1  # image and mask alike, left half only
    out = HAM(encoder="resnet18", width=16).augment(both)
    assert out.shape == both.shape and torch.equal(out[:, 0], out[:, 1])
    left = out[:, 0, :, :32].sum((1, 2)) > out[:, 0, :, 32:].sum((1, 2))
    assert 4 < left.sum() < 28


def trained(split, folder, epochs=3, **arguments):
    torch.manual_seed(0)
    model = HAM(**TINY, learning_rate=1e-3, decay_every=1, **arguments)
    folder.mkdir(exist_ok=True)
    history = training.fit(model, split, folder, epochs=epochs, batch_size=8, accelerator="cpu")
    return model, history.drop(columns="seconds")


def test_training_without_boxes(split, tmp_path):
    model, history = trained(split, tmp_path)
    assert history["loss_classes"].iloc[-1] < history["loss_classes"].iloc[0]
    assert history["loss_bounded"].between(0, 1).all() and history["active"].between(0, 1).all()
    assert "loss_box" not in history
    assert not model.training


def test_training_with_boxes_and_a_learning_rate_that_falls(split, tmp_path):
    taught = teach_boxes(split, fold=(0, 3))
    rates = []

    class Watched(HAM):
        def on_train_epoch_end(self):
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    torch.manual_seed(0)
    model = Watched(**TINY, learning_rate=1e-3, decay_every=1)
    history = training.fit(model, taught, tmp_path, epochs=2, batch_size=8, accelerator="cpu")
    assert (history["loss_box"] > 0).all() and history["loss"].notna().all()
    assert rates == pytest.approx([1e-4, 1e-5])


class Interrupted(HAM):
    """Stops as a killed process does, after the first epoch's checkpoint."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            raise InterruptedError


def test_an_interrupted_training_with_boxes_ends_with_the_same_numbers(split, tmp_path):
    taught = teach_boxes(split, fold=(0, 3))
    whole, history = trained(taught, tmp_path / "whole")
    torch.manual_seed(0)
    stopped = Interrupted(**TINY, learning_rate=1e-3, decay_every=1)
    (tmp_path / "again").mkdir()
    with pytest.raises(InterruptedError):
        training.fit(stopped, taught, tmp_path / "again", epochs=3, batch_size=8, accelerator="cpu")
    assert not (tmp_path / "again" / "history.json").exists()
    resumed, same = trained(taught, tmp_path / "again")
    pd.testing.assert_frame_equal(history, same)
    assert (history["loss_box"] > 0).all()
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_what_lies_outside_is_logged_of_all_positive_pairs(split, tmp_path):
    model, history = trained(split, tmp_path, epochs=1)
    table = nesting(model, split.val, batch_size=5, accelerator="cpu")
    images = torch.stack([split.val[i].image for i in range(len(split.val))])
    with torch.inference_mode():
        levels = model.levels(images)
    pairs = np.argwhere(split.val.labels == 1)
    mass = [levels.A[i, c].sum() for i, c in pairs]
    outside = [
        (levels.A[i, c] - torch.minimum(levels.A[i, c], levels.A_abnormal[i, 0])).sum()
        for i, c in pairs
    ]
    np.testing.assert_allclose(table["mass"], mass, rtol=1e-4)
    np.testing.assert_allclose(table["outside"], outside, atol=1e-4)
    assert history["val_mass"].item() == pytest.approx(table["mass"].mean(), rel=1e-5)
    assert history["val_beyond"].item() == pytest.approx(table["outside"].mean(), rel=1e-5)
    assert table["patient_id"].tolist() == [split.val.patient_ids[i] for i, _ in pairs]


def test_the_summary_of_nesting_is_of_mass_and_over_patients():
    table = pd.DataFrame(
        {
            "patient_id": ["1", "1", "2", "3"],
            "finding": [0, 4, 4, 4],
            "mass": [2.0, 1.0, 3.0, 0.0],
            "outside": [1.0, 1.0, 0.0, 0.0],
        }
    )
    shares = summarise_nesting(table)["outside_abnormality"]
    assert shares["macro"]["value"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert shares["micro"]["value"] == pytest.approx(2 / 6) and shares["micro"]["n"] == 4
    mass = shares["per_finding"]["Mass"]
    assert mass["value"] == pytest.approx(0.25) and mass["n"] == 3
    assert (mass["low"], mass["high"]) == pytest.approx((0.0, 1.0))
    assert shares["per_finding"]["Hernia"] == {"value": None, "low": None, "high": None, "n": 0}


def test_mean_maps_are_of_all_finished_runs(tmp_path):
    draws = np.random.default_rng(0)
    maps = draws.random((3, 14, 4, 4)).astype(np.float16)
    ids = ["a", "b", "c"]
    for name, document in (("done", "metrics.json"), ("stopped", "history.json")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / document).write_text("{}")
        (folder / "params.json").write_text('{"ordinal": 0.1, "seed": 3, "preset": "quick"}')
        with open(folder / "predictions.npz", "wb") as file:
            scores = draws.random((3, 14))
            Predictions.from_arrays(ids, scores, map_ids=ids, maps=maps, frame=32).write(file)
    ham_nesting.main([str(tmp_path / "runs"), str(tmp_path / "mean.csv")])
    table = pd.read_csv(tmp_path / "mean.csv")
    assert len(table) == 16 and (table["ordinal"] == 0.1).all() and (table["seed"] == 3).all()
    cell = table.query("row == 1 and column == 2")["value"].item()
    assert cell == pytest.approx(maps[:, :, 1, 2].astype(float).mean(), abs=1e-4)
    with pytest.raises(ValueError, match="no finished run below"):
        ham_nesting.mean_maps(tmp_path / "runs" / "stopped")


def test_the_leak_is_measured_with_both_models_on_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    preset = PRESETS["smoke"] | {"phantom": {"n_train": 32, "n_val": 12, "n_test": 40}}
    monkeypatch.setitem(PRESETS, "smoke", preset)
    ham_leak.main([str(tmp_path / "runs"), str(tmp_path / "leak.csv"), "--preset", "smoke"])
    table = pd.read_csv(tmp_path / "leak.csv").set_index(["arm", "metric"])
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["phantom-0-0", "phantom-0-1"]
    for metric in ("auroc", *ham_leak.PROTOCOLS):
        difference = table.loc[("difference", metric)]
        arms = [table.loc[(arm, metric)] for arm in ("leaky", "disjoint")]
        assert difference["value"] == pytest.approx(arms[0]["value"] - arms[1]["value"], abs=1e-5)
        assert arms[0]["n"] == arms[1]["n"] == difference["n"] > 0
    notes = json.loads((tmp_path / "runs" / "phantom-0-0" / "environment.json").read_text())
    assert "our re-creation of a leak" in notes["notes"][-1]


def test_presets_make_networks_that_fit_their_images():
    for name, preset in PRESETS.items():
        model = create_model("ham", **preset["network"]).eval()
        side = min(preset["image_size"], 96)
        assert preset["image_size"] % 8 == 0
        if name in ("smoke", "quick"):
            assert model(torch.rand(1, 1, side, side)).maps.shape[-1] == side // 8
    default = create_model("ham").hparams
    paper = create_model("ham", **PRESETS["paper"]["network"]).hparams
    assert paper == default and default.learning_rate == PRESETS["paper"]["learning_rate"]


def test_parameters_out_of_range_are_refused():
    values = {"preset": "smoke", "dataset": "phantom", "data_dir": None, "run_dir": None, "seed": 0}
    values |= dict.fromkeys(("image_size", "epochs", "batch_size", "learning_rate"))
    values |= {"accelerator": "cpu", "num_workers": 0, "pretrained": False}
    assert HAMParameters(**values, ordinal=0.001, box_share=0.8).box_share == 0.8
    with pytest.raises(ValueError, match=re.escape("ordinal = -1; the weight")):
        HAMParameters(**values, ordinal=-1, box_share=0)
    with pytest.raises(ValueError, match=re.escape("box_share = 1.5; the share")):
        HAMParameters(**values, ordinal=0, box_share=1.5)


def test_a_taught_dataset_gives_masks_of_its_lessons(split):
    taught = teach_boxes(split, fold=(0, 3)).train
    assert isinstance(taught, BoxTaught)
    indices = np.flatnonzero(np.isin(taught.image_ids, taught.lessons["image_id"]))[:3].tolist()
    masks = taught.__getitems__([0, *indices]).masks
    assert masks.shape == (4, 14, 64, 64) and not masks[0].any()
    for mask, index in zip(masks[1:], indices, strict=True):
        rows = taught.lessons[taught.lessons["image_id"] == taught.image_ids[index]]
        expected = np.zeros((14, 64, 64), bool)
        for _, finding, *corners in rows.itertuples(index=False):
            x0, y0, x1, y1 = np.round(np.array(corners) * 64).astype(int)  # the phantom's are whole
            expected[finding, y0:y1, x0:x1] = True
        assert np.array_equal(mask.numpy(), expected) and expected.any()
