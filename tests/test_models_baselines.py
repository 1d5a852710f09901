import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cxrlib import training
from cxrlib.models import create_model
from cxrlib.models.baselines import Baseline, WithGlobalAverage
from cxrlib.phantom import dataset as phantom
from cxrlib.pooling import (
    LOGIT_POOLINGS,
    logit_pooling,
    lse_lba_pool,
    lse_pool,
    noisy_or_log_odds,
)

TINY = {"encoder": "resnet18", "width": 16}
DECODERS = ["fpn", "unet", "deeplab"]


def has(module: nn.Module, kind: type) -> bool:
    return any(isinstance(part, kind) for part in module.modules())


def count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


@pytest.mark.parametrize(
    ("head", "side"), [("cam", 4), ("li2018", 20), ("fpn", 32), ("unet", 128), ("deeplab", 32)]
)
def test_maps_of_every_head(head, side):
    output = create_model("baseline", head=head, **TINY)(torch.rand(2, 1, 128, 128))
    assert output.maps.shape == (2, 14, side, side) and output.maps.dtype == torch.float32
    assert output.logits.shape == (2, 14) and output.logits.dtype == torch.float32


def test_alone_it_is_the_papers_cam_with_maximum_pooling():
    model = create_model("baseline")
    assert count(model) == 23_501_760 + 2048 * 14 + 14  # the encoder of PYLON, a linear classifier
    output = model.eval()(torch.rand(1, 1, 256, 256))
    assert output.maps.shape == (1, 14, 8, 8)
    torch.testing.assert_close(output.logits.sigmoid(), output.maps.amax((-2, -1)))


def test_mean_pooling_of_the_map_is_a_global_average_and_a_linear_layer():
    model = Baseline("cam", pooling="mean", **TINY).eval()
    images = torch.rand(3, 1, 96, 160)
    features = model.network.encoder(model.standardize(images))[-1]
    head = model.network.head
    linear = features.mean((-2, -1)) @ head.weight[:, :, 0, 0].T + head.bias
    torch.testing.assert_close(model(images).logits, linear, atol=1e-5, rtol=1e-4)


def test_li_et_al_pool_with_noisy_or_unless_told_otherwise():
    model = Baseline("li2018", **TINY).eval()
    output = model(torch.rand(2, 1, 64, 64))
    not_p = (0.98 + 0.02 * (1 - output.maps)).flatten(2).prod(-1)
    torch.testing.assert_close(output.logits.sigmoid(), 1 - not_p, atol=1e-5, rtol=1e-4)
    other = Baseline("li2018", pooling="max", **TINY).eval()(torch.rand(2, 1, 64, 64))
    torch.testing.assert_close(other.logits.sigmoid(), other.maps.amax((-2, -1)))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=40),
    st.floats(0.01, 0.99),
)
def test_noisy_or_is_the_product_of_the_formula(scores, least):
    logits = torch.tensor(scores, dtype=torch.float64)[None]
    S = logits.sigmoid()
    not_p = (least + (1 - least) * (1 - S)).prod()
    naive = torch.log((1 - not_p) / not_p)
    odds = noisy_or_log_odds(logits, least)
    if naive.isfinite() and not_p < 1 - 1e-6:
        torch.testing.assert_close(odds, naive, atol=1e-6, rtol=1e-6)
    assert odds.isfinite()
    more = noisy_or_log_odds(torch.cat([logits, logits], 1), least)
    assert more >= odds  # one more look can only find more


@pytest.mark.parametrize("score", [-200.0, -30.0, 0.0, 200.0])
def test_noisy_or_stays_finite_with_its_gradient(score):
    logits = torch.full((1, 1, 128, 128), score, requires_grad=True)
    odds = noisy_or_log_odds(logits)
    odds.sum().backward()
    assert odds.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("least", [0.0, 1.0, float("nan")])
def test_noisy_or_needs_room_below_one(least):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        noisy_or_log_odds(torch.zeros(1, 2, 2), least)


def test_every_pooling_of_logits_is_its_formula():
    logits = torch.randn(2, 14, 6, 5)
    S = logits.sigmoid()
    odds = {name: logit_pooling(name)(logits) for name in LOGIT_POOLINGS}
    assert {odd.shape for odd in odds.values()} == {(2, 14)}
    assert torch.equal(odds["max"], logits.amax((-2, -1)))
    torch.testing.assert_close(odds["mean"], logits.mean((-2, -1)))
    torch.testing.assert_close(odds["lse"], lse_pool(logits, 5.0))
    pooled = lse_lba_pool(S, 5.0, torch.tensor(0.0))
    torch.testing.assert_close(odds["lse_lba"].sigmoid(), pooled, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="did you mean 'lse'"):
        logit_pooling("lsee")


def test_the_sharpness_of_lse_lba_is_learned():
    model = Baseline("cam", pooling="lse_lba", **TINY)
    model(torch.rand(2, 1, 64, 64)).logits.sum().backward()
    assert model.pool.beta.grad.abs() > 0


@pytest.mark.parametrize("head", DECODERS)
def test_the_global_average_is_a_switch(head):
    for gap in (False, True):
        model = Baseline(head, gap=gap, **TINY)
        assert has(model, nn.AdaptiveAvgPool2d) == gap
        model(torch.rand(2, 1, 64, 64)).logits.sum().backward()
    published = Baseline(head, **TINY)
    assert has(published, nn.AdaptiveAvgPool2d) == (head == "deeplab")


def test_the_global_average_reaches_every_cell():
    torch.manual_seed(0)
    network = WithGlobalAverage(Baseline("fpn", **TINY).network).eval()
    images = torch.rand(1, 1, 512, 64)
    changed = images.clone()
    changed[..., :32, :32] = 0
    features, others = (network.encoder(x)[-1] for x in (images, changed))
    difference = (features + network.gap(features)) - (others + network.gap(others))
    assert difference[..., -1, :].abs().max() > 0


def test_without_its_average_deeplab_projects_four_branches():
    with_gap, without = (Baseline("deeplab", gap=gap, **TINY) for gap in (True, False))
    # The branch (128 -> 64 and its normalization) and its share of the projection (64 -> 64).
    assert count(with_gap) - count(without) == 128 * 64 + 2 * 64 + 64 * 64


@pytest.mark.parametrize("head", ["li2018", *DECODERS])
@pytest.mark.parametrize("gap", [False, True])
def test_a_decoder_has_one_kind_of_normalization_and_the_encoder_its_own(head, gap):
    gap = None if head == "li2018" else gap
    batch, group = (Baseline(head, norm=norm, gap=gap, **TINY) for norm in ("batch", "group"))
    assert not has(batch, nn.GroupNorm) and has(group, nn.GroupNorm)
    in_encoder = [layer for layer in group.network.encoder.modules() if is_batch_norm(layer)]
    assert in_encoder == [layer for layer in group.modules() if is_batch_norm(layer)] != []
    assert count(batch) == count(group)


def is_batch_norm(layer):
    return isinstance(layer, nn.BatchNorm2d)


def test_a_group_normalized_average_trains_on_one_image():
    image = torch.rand(1, 1, 64, 64)
    model = Baseline("deeplab", norm="group", **TINY)
    assert model(image).logits.isfinite().all()
    with pytest.raises(ValueError, match="one image"):
        model(image[..., :32, :32])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "pan"}, "head = 'pan'.*Valid: cam, li2018, fpn, unet, deeplab"),
        ({"head": "cam", "gap": True}, "only the decoders have the choice"),
        ({"head": "cam", "norm": "group"}, "norm = 'group' with head = 'cam'"),
        ({"head": "fpn", "norm": "layer"}, "Valid: batch, group"),
        ({"pooling": "median"}, "Valid: max, mean, lse"),
        ({"head": "unet", "encoder": "vgg16"}, "Valid: resnet18"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("baseline", **{**TINY, **arguments})


def test_impossible_shapes_are_refused():
    model = Baseline("unet", **TINY)
    with pytest.raises(ValueError, match=r"48 x 48 px.*multiple of 32 .* 64 px"):
        model(torch.rand(2, 1, 48, 48))
    with pytest.raises(ValueError, match=r"one image of 32 x 32 px.*batch_size=2"):
        model(torch.rand(1, 1, 32, 32))
    with pytest.raises(ValueError, match="one image"):
        Baseline("deeplab", **TINY)(torch.rand(1, 1, 64, 64))


def test_a_baseline_is_trained_by_the_same_recipe(tmp_path):
    split = phantom.load(64, n_train=32, n_val=8, n_test=8)
    torch.manual_seed(0)
    model = Baseline("cam", pooling="lse_lba", **TINY)
    history = training.fit(model, split, tmp_path, epochs=2, batch_size=8, accelerator="cpu")
    assert history["learning_rate"].tolist() == pytest.approx([1e-4, 1e-4])
    assert history[["loss", "val_loss"]].gt(0).all(axis=None)
