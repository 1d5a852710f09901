import json

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm import create_model as timm_model
from torch import nn
from torchvision.models.resnet import resnet18

from cxrlib import training
from cxrlib.datasets.base import Split
from cxrlib.models import create_model, recipe
from cxrlib.models.encoders import normalize_with, resnet
from cxrlib.models.pylon import PA, PYLON, UP, enlarge
from cxrlib.models.variants import PRESETS, VARIANTS, PYLONParameters, create_variant
from cxrlib.phantom import dataset as phantom

TINY = {"encoder": "resnet18", "width": 16}
EPOCHS, RATE = 6, 0.03  # so large that the validation loss does not always fall


def count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def has(module: nn.Module, kind: type) -> bool:
    return any(isinstance(part, kind) for part in module.modules())


@pytest.fixture(scope="module")
def published() -> PYLON:
    return create_model("pylon").eval()


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=32, n_val=8, n_test=8)


def test_every_part_has_as_many_weights_as_published(published):
    parts = [published.encoder, published.pa, *published.up, published.head]
    counts = [count(part) for part in parts]
    assert counts == [23_501_760, 363_015, 1_183_104, 329_600, 99_456, 1_806]
    assert count(published) == sum(counts) == 25_478_741


def test_the_fixtures_state_the_same_counts(published, shared):
    text = (shared / "fixtures" / "README.md").read_text()
    for part in (published, published.encoder, published.pa, *published.up, published.head):
        assert f"{count(part):,}" in text


@pytest.mark.parametrize("side", [256, 512])
def test_maps_have_stride_4(published, side):
    with torch.inference_mode():
        output = published(torch.rand(1, 1, side, side))
    assert output.logits.shape == (1, 14) and output.logits.dtype == torch.float32
    assert output.maps.shape == (1, 14, side // 4, side // 4)
    assert output.maps.dtype == torch.float32
    torch.testing.assert_close(output.logits.sigmoid(), output.maps.amax((-2, -1)))


@pytest.mark.parametrize(
    ("pa_depth", "height", "width"), [(1, 64, 64), (1, 96, 160), (2, 224, 128), (3, 256, 320)]
)
def test_smaller_images_need_a_flatter_attention(pa_depth, height, width):
    output = PYLON(pa_depth=pa_depth, **TINY)(torch.rand(2, 1, height, width))
    assert output.maps.shape == (2, 14, height // 4, width // 4)


@pytest.mark.parametrize(
    ("arguments", "side", "message"),
    [
        ({}, 224, r"224 x 224 px.*is 256 px, so at least.*fewer levels of attention"),
        ({"pa_depth": 2}, 96, r"96 x 96 px.*is 128 px"),
        ({"use_pa": False}, 100, r"multiple of 32 was expected, such as 128 px"),
        ({"use_pa": False}, 0, r"0 x 0 px"),
    ],
)
def test_a_size_that_cannot_be_divided_is_refused(arguments, side, message):
    with pytest.raises(ValueError, match=message):
        PYLON(**arguments, **TINY)(torch.rand(2, 1, side, side))


def test_training_needs_two_values_to_normalize():
    model, image = PYLON(**TINY), torch.rand(1, 1, 256, 256)
    with pytest.raises(ValueError, match=r"one image of 256 x 256 px.*batch_size=2"):
        model(image)
    assert model(image.expand(2, -1, -1, -1)).logits.isfinite().all()
    assert model.eval()(image).logits.isfinite().all()
    assert PYLON(pa_depth=2, **TINY)(image).logits.isfinite().all()
    with pytest.raises(ValueError, match="one image"):
        PYLON(pa_depth=2, gap=True, **TINY)(image)


def test_group_normalization_needs_two_cells():
    with pytest.raises(ValueError, match=r"256 x 256.*512 px or use one level less"):
        PYLON(norm="group", **TINY)(torch.rand(2, 1, 256, 256))
    assert PYLON(norm="group", pa_depth=2, **TINY)(torch.rand(1, 1, 256, 256)).maps.std() > 0


def test_attention_is_the_published_formula():
    torch.manual_seed(0)
    pa, x = PA(6, 4, depth=3, gap=False).eval(), torch.randn(2, 6, 16, 24)
    (down1, down2, down3), (conv1, conv2, conv3) = pa.down, pa.side
    x1 = down1(x)
    x2 = down2(x1)
    x3 = down3(x2)
    a = enlarge(enlarge(enlarge(conv3(x3), x2) + conv2(x2), x1) + conv1(x1), x)
    assert a.std() > 0
    torch.testing.assert_close(pa(x), a * pa.mid(x))
    kernels = [layer.weight.shape[-1] for layer in pa.modules() if isinstance(layer, nn.Conv2d)]
    assert kernels == [1, 7, 5, 3, 7, 5, 3]


def test_only_the_global_average_tells_a_cell_of_what_is_far_away():
    torch.manual_seed(0)
    x = torch.randn(1, 6, 64, 64)
    changed = x.clone()
    changed[..., :2, :2] += 5
    for gap in (False, True):
        pa = PA(6, 4, depth=1, gap=gap).eval()
        far = (pa(changed) - pa(x))[..., 32:, 32:].abs().max()
        assert (far > 1e-4) == gap
        assert has(pa, nn.AdaptiveAvgPool2d) == gap


def test_without_attention_the_coarsest_features_go_up_as_they_are():
    model = PYLON(use_pa=False, **TINY)
    assert count(model.pa) == count(model.pa.mid)
    x = torch.rand(2, 128, 3, 3)
    model.eval()
    assert torch.equal(model.pa(x), model.pa.mid(x))


def test_a_single_layer_has_the_weights_of_one_convolution():
    assert count(UP(1024, 128, "1layer")) == 1024 * 128 + 128 + 2 * 128
    assert count(UP(1024, 128, "2layer")) == 1_183_104


def test_enlarging_keeps_corners_and_is_linear():
    y = torch.arange(4.0).view(1, 1, 2, 2)
    large = enlarge(y, torch.empty(1, 1, 4, 4))[0, 0]
    naive = torch.linspace(0, 1, 4) + 2 * torch.linspace(0, 1, 4)[:, None]
    torch.testing.assert_close(large, naive)


def test_group_normalization_is_the_decoders():
    batch, group = PYLON(**TINY), PYLON(norm="group", **TINY)
    assert has(batch, nn.BatchNorm2d) and not has(batch, nn.GroupNorm)
    assert has(group.encoder, nn.BatchNorm2d) and not has(group.encoder, nn.GroupNorm)
    for part in (group.pa, group.up):
        assert has(part, nn.GroupNorm) and not has(part, nn.BatchNorm2d)
    assert count(batch) == count(group)


def test_group_normalization_tells_a_cell_of_the_rest_of_its_image():
    torch.manual_seed(0)
    x, y = torch.randn(1, 6, 16, 16), torch.randn(1, 4, 8, 8)
    changed = x.clone()
    changed[..., :2, :2] += 5
    for norm, told in (("batch", False), ("group", True)):
        up = UP(6, 4, "2layer").eval()
        normalize_with(norm, up)
        far = (up(changed, y) - up(x, y))[..., 8:, 8:].abs().max()
        assert (far > 1e-4) == told


@pytest.mark.parametrize(("pooling", "reached"), [("max", 1), ("mean", 16 * 16)])
def test_the_maximum_teaches_one_cell(pooling, reached):
    torch.manual_seed(0)
    model = PYLON(pooling=pooling, pa_depth=1, **TINY)
    kept = []
    model.head.register_forward_hook(lambda head, inputs, scores: kept.append(scores))
    logits = model(torch.rand(2, 1, 64, 64)).logits
    (gradient,) = torch.autograd.grad(logits.sum(), kept)
    assert ((gradient != 0).sum((-2, -1)) == reached).all()


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = PYLON(pa_depth=2, pooling="mean", gap=True, **TINY)
    model(torch.rand(4, 1, 128, 128)).logits.square().sum().backward()
    assert all(weights.grad is not None for weights in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pa_depth": 4}, "pa_depth = 4; the attention has 1, 2 or 3 levels"),
        ({"up_type": "3layer"}, "'2layer' or '1layer' was expected"),
        ({"norm": "layer"}, "norm = 'layer'; Valid: batch, group"),
        ({"pooling": "maxx"}, "did you mean 'max'"),
        ({"encoder": "resnet51"}, "did you mean 'resnet50'"),
        ({"width": 24}, "width = 24; a multiple of 16"),
        ({"width": 32, "pretrained": True}, "width = 32 with pretrained=True"),
        ({"augmentation": "ham"}, "'pylon' or 'upright' was expected"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("pylon", **{"encoder": "resnet18", **arguments})


def test_the_papers_augmentation_differs_by_image_and_follows_the_seed():
    images = torch.zeros(32, 1, 64, 64)
    images[:, :, 20:44, 8:16] = 1  # left half only
    model = PYLON(**TINY)
    torch.manual_seed(0)
    first = model.augment(images)
    torch.manual_seed(0)
    assert torch.equal(first, model.augment(images))
    assert first.shape == images.shape and not torch.equal(first[0], first[1])
    left = first[..., :32].sum((1, 2, 3)) > first[..., 32:].sum((1, 2, 3))
    assert 0 < left.sum() < 32  # mirrored or turned, unlike the upright one
    upright = PYLON(augmentation="upright", **TINY).augment(images)
    assert (upright[..., :32].sum((1, 2, 3)) > 10 * upright[..., 32:].sum((1, 2, 3))).all()


def test_weights_of_imagenet_come_from_the_cache_with_colours_summed(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"'resnet18.tv_in1k' are neither in the cache.*connect once"):
        resnet("resnet18.tv_in1k", 64, pretrained=True)
    repository = tmp_path / "models--timm--resnet18.tv_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    weights = resnet18().state_dict()
    save_file(weights, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    encoder = resnet("resnet18.tv_in1k", 64, pretrained=True)
    torch.testing.assert_close(encoder.conv1.weight, weights["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(encoder.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])


def test_a_narrow_encoder_is_the_same_network_but_for_its_width():
    plain = timm_model("resnet18", in_chans=1, features_only=True, out_indices=(1, 2, 3, 4))
    assert str(resnet("resnet18", 64, pretrained=False)) == str(plain)
    narrow = resnet("resnet18", 16, pretrained=False)
    assert narrow.feature_info.channels() == [16, 32, 64, 128]
    assert narrow.feature_info.reduction() == plain.feature_info.reduction() == [4, 8, 16, 32]


def trained(split, folder, model_type=PYLON, epochs=EPOCHS, seed=0, **arguments):
    torch.manual_seed(seed)
    arguments = {"learning_rate": RATE, "pa_depth": 1, **TINY, **arguments}
    model = model_type(**arguments)
    folder.mkdir(exist_ok=True)
    history = training.fit(
        model, split, folder, epochs=epochs, batch_size=8, seed=seed, accelerator="cpu"
    )
    return model, history.drop(columns="seconds").to_dict("list")


def test_the_learning_rate_falls_after_two_epochs_without_a_lower_loss(split, tmp_path):
    _, history = trained(split, tmp_path / "run")
    rate, best, bad = RATE, float("inf"), 0
    for loss, used in zip(history["val_loss"], history["learning_rate"], strict=True):
        assert used == pytest.approx(rate)
        better = loss < best * (1 - 1e-4)
        best, bad = (loss, 0) if better else (best, bad + 1)
        if bad > 1:
            rate, bad = rate * 0.2, 0
    assert history["learning_rate"][-1] < RATE  # this run has a plateau to resume in


class Killed(Exception):
    pass


@pytest.mark.parametrize("last", [2, 3, 5])
def test_a_resumed_run_ends_with_the_same_numbers(split, tmp_path, last, uninterrupted):
    class Interrupted(PYLON):
        def training_step(self, batch, batch_index):
            if self.current_epoch == last and batch_index == 1:
                raise Killed
            return super().training_step(batch, batch_index)

    with pytest.raises(Killed):
        trained(split, tmp_path, Interrupted)
    assert not (tmp_path / "history.json").exists()
    resumed, history = trained(split, tmp_path)
    whole, expected = uninterrupted
    assert history == expected
    for weights, others in zip(
        resumed.state_dict().values(), whole.state_dict().values(), strict=True
    ):
        assert torch.equal(weights, others)


@pytest.fixture(scope="module")
def uninterrupted(split, tmp_path_factory):
    return trained(split, tmp_path_factory.mktemp("whole"))


def test_the_seed_decides(split, tmp_path, uninterrupted):
    _, history = trained(split, tmp_path / "again")
    assert history == uninterrupted[1]
    assert history != trained(split, tmp_path / "other", seed=1)[1]


def test_training_ends_at_the_least_rate_also_when_resumed(split, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "LEAST_RATE", 0.01)
    _, history = trained(split, tmp_path, epochs=30)
    assert len(history["epoch"]) < 30
    assert history["learning_rate"] == pytest.approx([RATE] * len(history["epoch"]))
    (tmp_path / "history.json").unlink()  # killed between the last checkpoint and the history
    assert trained(split, tmp_path, epochs=30)[1] == history
    assert len(json.loads((tmp_path / "history.json").read_text())) == len(history["epoch"])


def test_presets_make_networks_that_fit_their_images():
    for preset in PRESETS.values():
        model = create_variant("pylon", pa_depth=preset["pa_depth"], **preset["network"])
        side = preset["image_size"]
        assert model(torch.rand(2, 1, side, side)).maps.shape[-1] == side // 4
    default = create_model("pylon").hparams
    paper = create_variant("pylon", pa_depth=PRESETS["paper"]["pa_depth"]).hparams
    assert paper == default and default.learning_rate == PRESETS["paper"]["learning_rate"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_from_two_small_images(variant):
    settings = PRESETS["smoke"]
    torch.manual_seed(0)
    model = create_variant(variant, pa_depth=settings["pa_depth"], **settings["network"])
    output = model(torch.rand(2, 1, 128, 128))
    output.logits.sum().backward()
    assert output.logits.shape == (2, 14) and output.maps.shape[:2] == (2, 14)
    assert output.maps.min() >= 0 and output.maps.max() <= 1
    assert next(model.parameters()).grad.isfinite().all()


def test_a_variant_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="did you mean 'cam_mean'"):
        create_variant("cam_meen", pa_depth=1)
    values = {"preset": "smoke", "dataset": "phantom", "data_dir": None, "run_dir": None, "seed": 0}
    values |= dict.fromkeys(("image_size", "epochs", "batch_size", "learning_rate"))
    values |= {"accelerator": "cpu", "num_workers": 0, "pretrained": False, "against": None}
    assert PYLONParameters(**values, variant="li2018").variant == "li2018"
    with pytest.raises(ValueError, match="variant = 'pylom'; did you mean 'pylon'"):
        PYLONParameters(**values, variant="pylom")
    with pytest.raises(ValueError, match="against = 'cam'; did you mean 'cam_"):
        PYLONParameters(**{**values, "against": "cam"}, variant="pylon")
    with pytest.raises(ValueError, match="against = 'fpn' is the variant itself"):
        PYLONParameters(**{**values, "against": "fpn"}, variant="fpn")
