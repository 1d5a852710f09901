import copy

import numpy as np
import pytest
import torch

from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models import create_model
from cxrlib.models.lse_lba import PRESETS
from cxrlib.phantom.transfer import PatchNet
from cxrlib.pooling import lse_pool
from cxrlib.transforms import random_affine

TINY = {"width": 8, "levels": 2, "growth": 4, "layers": 1}


def test_the_published_network_has_maps_at_a_quarter_of_512():
    model = create_model("lse_lba").eval()
    with torch.inference_mode():
        output = model(torch.rand(1, 1, 512, 512))
    assert output.logits.shape == (1, 14)
    assert output.maps.shape == (1, 14, 128, 128)
    assert output.maps.min() >= 0 and output.maps.max() <= 1


def test_image_logits_are_the_pooled_maps():
    model = create_model("lse_lba", r0=3, **TINY).eval()
    output = model(torch.rand(2, 1, 64, 64))
    pooled = lse_pool(output.maps, 4.0)  # beta starts at 0: r = r0 + 1
    torch.testing.assert_close(output.logits.sigmoid(), pooled, atol=1e-5, rtol=1e-4)


def test_sharpness_is_learned_but_bounded():
    model = create_model("lse_lba", r0=2, **TINY)
    model(torch.rand(2, 1, 32, 32)).logits.sum().backward()
    pool = model.network.pool
    assert pool.beta.grad.abs() > 0
    with torch.no_grad():
        pool.beta.fill_(-50)
    assert pool.r.item() == pytest.approx(2)


def test_every_weight_learns_and_beta_more_slowly():
    model = create_model("lse_lba", learning_rate=0.01, **TINY)
    fast, slow = model.groups()
    assert [*slow["params"]] == [model.network.pool.beta] and slow["lr"] < fast["lr"] == 0.01
    together = {id(weights) for group in (fast, slow) for weights in group["params"]}
    assert together == {id(weights) for weights in model.parameters()}


def test_every_weight_gets_a_gradient():
    model = create_model("lse_lba", **TINY)
    model(torch.rand(4, 1, 32, 32)).logits.square().sum().backward()
    assert all(weights.grad is not None for weights in model.parameters())


def test_exposure_does_not_change_the_answer():
    model = create_model("lse_lba", **TINY).eval()
    image = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(
        model(image).logits, model(0.3 + 0.5 * image).logits, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("network", [create_model("lse_lba", **TINY), PatchNet(width=4)])
def test_maps_do_not_lean(network):
    """Mirrored weights on a mirrored image give the mirrored map, so no cell looks to one side."""
    network, image = network.eval(), torch.rand(2, 1, 64, 64)
    maps = network(image).maps
    mirrored = copy.deepcopy(network)
    with torch.no_grad():
        for weights in mirrored.parameters():
            if weights.ndim == 4:
                weights.copy_(weights.flip(-1))
        if isinstance(network, PatchNet):
            mirrored.features[0].weight[:, 2].neg_()  # of the channel that holds x
    torch.testing.assert_close(mirrored(image.flip(-1)).maps.flip(-1), maps, atol=1e-5, rtol=1e-4)


def test_presets_make_networks_that_fit_their_images():
    for preset in PRESETS.values():
        model = create_model("lse_lba", **preset["network"])
        assert preset["image_size"] % model.network.multiple == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lse-lba", {}, "did you mean 'lse_lba'"),
        ("lse_lba", {"r00": 5}, "did you mean 'r0'.*Valid: r0, num_classes"),
        ("lse_lba", {"r0": -1}, "number >= 0"),
    ],
)
def test_unknown_names_and_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


def test_a_size_the_network_cannot_halve_is_refused():
    with pytest.raises(ValueError, match=r"\(60, 60\).*multiple of 16"):
        create_model("lse_lba", **TINY)(torch.rand(1, 1, 60, 60))


def test_loss_is_cross_entropy_over_known_labels():
    rng = np.random.default_rng(0)
    odds = torch.tensor(rng.normal(size=(6, 14)))
    labels = torch.tensor(rng.integers(0, 2, (6, 14)).astype(float))
    labels[rng.random((6, 14)) < 0.3] = torch.nan
    p, known = odds.sigmoid(), ~labels.isnan()
    naive = -(labels * p.log() + (1 - labels) * (1 - p).log())[known].mean()
    torch.testing.assert_close(multilabel_cross_entropy(odds, labels), naive)
    nothing = multilabel_cross_entropy(odds.requires_grad_(), torch.full((6, 14), torch.nan))
    nothing.backward()
    assert nothing == 0 and torch.equal(odds.grad, torch.zeros_like(odds))


def test_augmentation_differs_by_image_follows_the_seed_and_never_mirrors():
    images = torch.zeros(8, 1, 64, 64)
    images[:, :, 20:44, 8:16] = 1  # left half only
    torch.manual_seed(0)
    first = random_affine(images)
    torch.manual_seed(0)
    assert torch.equal(first, random_affine(images))
    assert not torch.equal(first[0], first[1])
    assert (first[..., :32].sum((1, 2, 3)) > 10 * first[..., 32:].sum((1, 2, 3))).all()
    still = random_affine(images, degrees=0, shift=0, zoom=0)
    torch.testing.assert_close(still, images, atol=1e-5, rtol=0)
