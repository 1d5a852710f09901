import copy
import math

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm import create_model as timm_model
from timm.layers import resample_abs_pos_embed
from torch.nn import functional as F

from cxrlib import training
from cxrlib.datasets.base import Batch, Split
from cxrlib.inference import loader, predict
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.models import create_model
from cxrlib.models.clarity import CLARiTy
from cxrlib.models.clarity_losses import (
    distillation_loss,
    foreground_loss,
    orthogonal_loss,
    suppression_loss,
)
from cxrlib.models.clarity_presets import PRESETS, PRIORS, VARIANTS, CLARiTyParameters
from cxrlib.models.clarity_teacher import Guided, Teacher, teach
from cxrlib.models.encoders import load_timm
from cxrlib.models.segment_cam import AttentionPool, SegmentCAM
from cxrlib.models.token_vit import DINO, TokenViT
from cxrlib.phantom import dataset as phantom
from cxrlib.phantom.organs import ORGANS
from cxrlib.pooling import lse_pool

TINY = {"width": 32, "depth": 2, "heads": 2, "patch": 8}
ALONE = {"foreground": 0.0, "distillation": 0.0}  # learns from labels alone
NARROW = {"encoder": "convnextv2_atto", "width": 8, "depths": (1, 1, 1, 1)}


def tiny(**arguments) -> CLARiTy:
    torch.manual_seed(0)
    return CLARiTy(**{**TINY, **arguments})


def guided_batch(count: int = 3) -> Batch:
    torch.manual_seed(1)
    labels = (torch.rand(count, 14) < 0.3).float()
    prior = (torch.rand(count, 1, 32, 32) < 0.5).float()
    images, teacher = torch.rand(count, 1, 32, 32), torch.randn(count, 14)
    return Batch(images, labels, teacher=teacher, prior=prior)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=32, n_val=8, n_test=8)


@pytest.mark.parametrize("side", [224, 512])
def test_there_are_14_tokens_and_a_patch_for_every_16_pixels(side):
    with torch.inference_mode():
        model = create_model("clarity", depth=1).eval()
        counted = []
        model.vit.blocks[0].norm1.register_forward_hook(lambda *a: counted.append(a[-1].shape))
        seen = model.look(torch.rand(1, 1, side, side))
        output = model(torch.rand(1, 1, side, side))
    grid = side // 16
    assert counted[0] == (1, 14 + grid**2, 384)
    assert seen.tokens.shape == (1, 14, 384)
    assert seen.attention.shape == seen.class_map.shape == (1, 14, grid, grid)
    assert seen.foreground.shape == (1, 1, grid, grid) and seen.heads.shape == (3, 1, 14)
    assert output.logits.shape == (1, 14) and output.logits.dtype == torch.float32
    assert output.maps.shape == (1, 14, grid, grid)


def test_the_published_network_is_vit_small():
    model = create_model("clarity")
    vit = timm_model("vit_small_patch16_224", num_classes=0, in_chans=1)
    ours, theirs = (sum(w.numel() for w in net.parameters()) for net in (model.vit, vit))
    assert ours == theirs - 2 * 384 + 14 * 384  # tokens for that of the image and its position
    assert len(model.vit.blocks) == 12 and model.vit.blocks[0].attn.num_heads == 6


def test_tokens_and_patches_go_through_the_blocks_of_timm():
    """With one class that starts as the image's token, the network is timm's."""
    torch.manual_seed(0)
    net = TokenViT(1, 32, 2, 2, 8, stem=False, pretrained=False, fused=True)
    vit = load_timm(
        DINO,
        False,
        in_chans=1,
        num_classes=0,
        img_size=112,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
    )
    vit.patch_embed.proj, vit.blocks, vit.norm = net.embed, net.blocks, net.norm
    with torch.no_grad():
        vit.cls_token.zero_()
        positions = net.positions.flatten(2).transpose(1, 2)
        vit.pos_embed.copy_(torch.cat([net.tokens, positions], dim=1))
    images = torch.randn(2, 1, 112, 112)
    tokens, patches, _ = net(images)
    expected = vit.forward_features(images)
    torch.testing.assert_close(tokens, expected[:, :1])
    torch.testing.assert_close(patches.flatten(2).transpose(1, 2), expected[:, 1:])


def test_positions_are_interpolated_as_timm_does():
    positions = tiny().vit.positions
    flat = positions.flatten(2).transpose(1, 2)
    for grid in ((28, 28), (8, 12)):
        expected = resample_abs_pos_embed(flat, list(grid), num_prefix_tokens=0)
        ours = tiny().vit.at(torch.Size(grid)).flatten(2).transpose(1, 2)
        torch.testing.assert_close(ours, expected)
    assert tiny().vit.at(torch.Size((14, 14))).equal(positions)


def test_attention_and_maps_are_in_range():
    model = tiny().eval()
    seen = model.look(torch.rand(2, 1, 64, 48))
    assert seen.attention.min() >= 0
    torch.testing.assert_close(seen.attention.sum((-2, -1)), torch.ones(2, 14))
    assert seen.maps.min() >= 0 and seen.maps.max() <= 1
    odds = 48 * seen.attention * seen.class_map.exp() * seen.foreground.sigmoid()
    torch.testing.assert_close(seen.maps, odds / (1 + odds))


def test_fused_attention_is_the_formula():
    fused, explicit = tiny(), tiny(fused=False)
    images = torch.rand(2, 1, 64, 64)
    for one, other in zip(fused.look(images), explicit.look(images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_class_attention_is_what_the_tokens_pay():
    """Written out for one layer: mean over heads of softmax(q k / sqrt d), without the tokens."""
    model = tiny(depth=1)
    images = torch.randn(1, 1, 32, 32)
    _, _, attention = model.vit(images)
    block = model.vit.blocks[0]
    patches = model.vit.embed(images) + model.vit.at(torch.Size((4, 4)))
    x = block.norm1(torch.cat([model.vit.tokens, patches.flatten(2).transpose(1, 2)], 1))
    q, k, _ = block.attn.qkv(x)[0].split(32, dim=-1)
    naive = torch.zeros(14, 16)
    for head in (slice(0, 16), slice(16, 32)):
        weights = (q[:, head] @ k[:, head].T / math.sqrt(16)).exp()
        naive += (weights / weights.sum(1, keepdim=True))[:14, 14:] / 2
    naive = naive / naive.sum(1, keepdim=True)
    torch.testing.assert_close(attention[0].flatten(1), naive, atol=1e-6, rtol=1e-4)


def test_logits_are_the_mean_of_the_heads():
    model, images = tiny().eval(), torch.rand(2, 1, 32, 32)
    seen = model.look(images)
    torch.testing.assert_close(model(images).logits, seen.heads.mean(0))
    tokens = (seen.tokens * model.read_tokens.weight).sum(-1) + model.read_tokens.bias
    torch.testing.assert_close(seen.heads[0], tokens)
    odds = 16 * seen.attention * seen.class_map.exp() * seen.foreground.sigmoid()
    torch.testing.assert_close(seen.cells, odds.log())
    torch.testing.assert_close(seen.heads[2], odds.mean((-2, -1)).log())


def test_attention_learns_what_the_class_map_knows():
    """A cell that speaks for a finding gets more of the token's attention, and no pole is lost."""
    cam, attention = SegmentCAM(1, 8), torch.full((1, 1, 2, 2), 0.25, requires_grad=True)
    S = torch.tensor([[[[5.0, -1.0], [-1.0, -1.0]]]])
    lse_pool(cam.cells(S, torch.zeros(1, 1, 2, 2), attention), 1.0).backward()
    assert attention.grad.flatten().argmax() == 0 and (attention.grad > 0).all()
    nothing = torch.zeros(1, 1, 2, 2, requires_grad=True)
    lse_pool(cam.cells(S, torch.zeros(1, 1, 2, 2), nothing), 1.0).backward()
    assert nothing.grad.isfinite().all()


def test_attention_pooling_is_its_formula():
    torch.manual_seed(0)
    pool, patches = AttentionPool(3, 8), torch.randn(1, 8, 2, 2)
    x = patches[0].flatten(1).T
    for c in range(3):
        shares = torch.softmax(x @ pool.queries[c] / math.sqrt(8), 0)
        expected = (shares @ x) @ pool.read.weight[c] + pool.read.bias[c]
        torch.testing.assert_close(pool(patches)[0, c], expected)


@pytest.mark.parametrize(
    ("switch", "heads"),
    [({"attention_pooling": False}, [0, 2]), ({"segment_cam": False}, [0, 1]), ({}, [0, 1, 2])],
)
def test_a_switch_takes_out_its_part_and_nothing_else(switch, heads):
    whole, part = tiny(), tiny(**switch)
    missing = whole.load_state_dict(part.state_dict(), strict=False).missing_keys
    gone = {"attention_pooling": "attention_pool", "segment_cam": "segment_cam"}
    assert {name.split(".")[0] for name in missing} == {gone[name] for name in switch}
    images = torch.rand(2, 1, 32, 32)
    seen, less = whole.look(images), part.look(images)
    torch.testing.assert_close(less.heads, seen.heads[heads])
    torch.testing.assert_close(less.attention, seen.attention)
    if "segment_cam" in switch:
        assert less.class_map is None and less.foreground is None
        torch.testing.assert_close(less.maps.amax((-2, -1)), torch.ones(2, 14))
    else:
        torch.testing.assert_close(less.maps, seen.maps)


@pytest.mark.parametrize("loss", ["orthogonal", "foreground", "suppression", "distillation"])
def test_a_loss_of_weight_zero_changes_nothing_but_the_sum(loss, monkeypatch):
    batch, whole, part = guided_batch(), tiny(), tiny(**{loss: 0.0})
    for name, weights in whole.state_dict().items():
        assert weights.equal(part.state_dict()[name])
    values = [model.losses(model.look(batch.images), batch) for model in (whole, part)]
    assert values[0] == values[1] and values[0][loss] > 0
    logged = {}
    for name, model in (("whole", whole), ("part", part)):
        monkeypatch.setattr(model, "log_dict", lambda *a, **k: None)
        logged[name] = model.training_step(batch, 0)
    difference = whole.weights[loss] * values[0][loss]
    if loss == "distillation":  # what the teacher has no part in is the labels'
        difference = difference - 0.5 * values[0]["classification"]
    torch.testing.assert_close(logged["whole"] - logged["part"], difference)


def test_the_loss_is_its_equation(monkeypatch):
    model, batch = tiny(distillation=0.3, orthogonal=0.2, temperature=3.0), guided_batch()
    monkeypatch.setattr(model, "log_dict", lambda *a, **k: None)
    loss = model.training_step(batch, 0)
    seen = model.look(batch.images)
    cross = torch.stack([multilabel_cross_entropy(head, batch.labels) for head in seen.heads])
    expected = (
        0.7 * cross.mean()
        + 0.3 * distillation_loss(seen.heads.mean(0), batch.teacher, 3.0)
        + 0.2 * orthogonal_loss(seen.tokens)
        + foreground_loss(seen.foreground, batch.prior)
        + suppression_loss(seen.class_map, seen.foreground)
    )
    torch.testing.assert_close(loss, expected)


def test_every_weight_gets_a_gradient(monkeypatch):
    model = tiny()
    monkeypatch.setattr(model, "log_dict", lambda *a, **k: None)
    model.training_step(guided_batch(), 0).backward()
    for name, weights in model.named_parameters():
        assert weights.grad is not None and weights.grad.abs().sum() > 0, name


def test_orthogonal_tokens_have_no_loss_and_parallel_ones_the_most():
    axes = 7 * torch.eye(20)[None, :14]
    assert orthogonal_loss(axes) == 0
    torch.testing.assert_close(orthogonal_loss(torch.ones(2, 14, 20)), torch.tensor(1.0))
    T = torch.randn(3, 5, 8)
    naive = [
        sum(F.cosine_similarity(t[i], t[j], 0) ** 2 for i in range(5) for j in range(5) if i != j)
        for t in T
    ]
    torch.testing.assert_close(orthogonal_loss(T), torch.stack(naive).mean() / 20)
    assert orthogonal_loss(T[:, :1]) == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_is_its_formula(temperature):
    torch.manual_seed(0)
    s, t = 3 * torch.randn(2, 6, 14, dtype=torch.double)
    p, q = (s / temperature).sigmoid(), (t / temperature).sigmoid()
    naive = temperature**2 * (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    torch.testing.assert_close(distillation_loss(s, t, temperature), naive)
    assert distillation_loss(t, t, temperature) == 0
    t[0] = torch.nan
    known = distillation_loss(s[1:], t[1:], temperature)
    torch.testing.assert_close(distillation_loss(s, t, temperature), known)
    sure = torch.tensor([[200.0, -200.0]], requires_grad=True)
    distillation_loss(sure, -sure.detach(), temperature).backward()
    assert sure.grad.isfinite().all() and (sure.grad != 0).all()


def test_the_foreground_learns_the_prior_and_the_background_is_suppressed():
    prior = torch.zeros(1, 1, 8, 8)
    prior[..., :4] = 1
    sure = torch.where(prior[..., ::2, ::2] > 0, 20.0, -20.0)
    assert foreground_loss(sure, prior) < 1e-6 < foreground_loss(-sure, prior)
    S = torch.zeros(2, 3, 4, 4, requires_grad=True)
    foreground = sure.clone().requires_grad_().expand(2, 1, 4, 4)
    suppression_loss(S, foreground).backward()
    assert (S.grad[..., 2:] > 0).all() and S.grad[..., :2].abs().max() < 1e-8
    torch.testing.assert_close(
        suppression_loss(S, foreground), ((1 - foreground.sigmoid()) * S.sigmoid()).mean()
    )


def test_a_prior_may_be_fixed_and_a_batchs_own_comes_first():
    model, batch = tiny(**{**ALONE, "foreground": 1.0}), guided_batch()
    plain = batch._replace(prior=None)
    seen = model.look(batch.images)
    with pytest.raises(ValueError, match=r"foreground = 1.0.*hold no prior.*Guided"):
        model.losses(seen, plain)
    model.fix_prior(torch.ones(5, 5))
    fixed = model.losses(seen, plain)["foreground"]
    torch.testing.assert_close(fixed, -F.logsigmoid(seen.foreground).mean())
    own = model.losses(seen, batch)["foreground"]
    torch.testing.assert_close(own, foreground_loss(seen.foreground, batch.prior))
    assert "prior" not in model.state_dict()
    for wrong in (torch.ones(1, 5, 5), torch.full((2, 2), 1.5), torch.full((2, 2), torch.nan)):
        with pytest.raises(ValueError, match="one map"):
            model.fix_prior(wrong)


def test_distillation_needs_a_teacher():
    model, batch = tiny(), guided_batch()
    with pytest.raises(ValueError, match=r"distillation = 0.5, but the batches hold no teacher"):
        model.losses(model.look(batch.images), batch._replace(teacher=None))


def test_a_prior_is_augmented_with_its_image():
    class Training:
        training = True

    model, shape = tiny(), torch.zeros(4, 1, 64, 64)
    shape[..., 20:44, 12:30] = 1
    model.__dict__["_trainer"] = Training()
    batch = Batch(shape, torch.zeros(4, 14), prior=F.avg_pool2d(shape, 2))
    moved = model.on_after_batch_transfer(batch, 0)
    assert (moved.images - shape).abs().max() > 0.5
    assert (moved.images - moved.prior).abs().mean() < 0.02
    plain = model.on_after_batch_transfer(Batch(shape, batch.labels), 0)
    assert plain.images.shape == shape.shape and not plain.images.equal(shape)


def test_a_teachers_predictions_reach_the_training_step(split, tmp_path):
    torch.manual_seed(0)
    teacher = Teacher(**NARROW, learning_rate=1e-3)
    (tmp_path / "teacher").mkdir()
    training.fit(teacher, split, tmp_path / "teacher", epochs=1, batch_size=8, accelerator="cpu")
    said = predict(teacher, split.train, batch_size=8, accelerator="cpu")
    rng = np.random.default_rng(0)
    priors = {name: rng.random((8, 8)) > 0.5 for name in split.train.image_ids.tolist()}
    guided = Guided(split.train, teacher=said, read_prior=priors.__getitem__)
    batch = guided.__getitems__([3, 1])
    with torch.inference_mode():
        answers = teacher(split.train.__getitems__([3, 1]).images / 255).logits
    torch.testing.assert_close(batch.teacher, answers, atol=1e-4, rtol=1e-4)
    assert batch.prior[0, 0].numpy().astype(bool).tolist() == priors[guided.image_ids[3]].tolist()
    part = guided.subset(np.array([3]))
    torch.testing.assert_close(part.__getitems__([0]).teacher, batch.teacher[:1])
    assert next(iter(loader(guided, 4, 0))).prior.shape == (4, 1, 8, 8)
    with pytest.raises(ValueError, match="is in the predictions: the dataset"):
        Guided(split.val, teacher=said)
    with pytest.raises(ValueError, match=r"shape \(4, 4\), 255 to 255 was given"):
        Guided(split.val, read_prior=lambda name: np.full((4, 4), 255, np.uint8))

    model = tiny(learning_rate=3e-3)
    before = copy.deepcopy(model.state_dict())
    lessons = Split(guided, split.val, split.test, split.data_hash)
    history = training.fit(model, lessons, tmp_path, epochs=3, batch_size=8, accelerator="cpu")
    assert {f"loss_{name}" for name in model.weights} <= set(history)
    assert history["loss"].is_monotonic_decreasing
    assert any(not weights.equal(before[name]) for name, weights in model.state_dict().items())


def test_it_trains_on_labels_alone(split, tmp_path):
    torch.manual_seed(0)
    settings = PRESETS["smoke"]
    model = create_model("clarity", **{**settings["network"], **ALONE}, learning_rate=3e-3)
    history = training.fit(model, split, tmp_path, epochs=2, batch_size=8, accelerator="cpu")
    assert history["loss"].iloc[1] < history["loss"].iloc[0]
    said = predict(model, split.test, batch_size=8, accelerator="cpu")
    assert said.scores.shape == (len(split.test), 14) and said.maps.shape[1:] == (14, 8, 8)


@pytest.mark.parametrize(
    ("make", "side", "message"),
    [
        (tiny, 60, r"60 x 60 px.*8 px to one cell.*multiple of 8.*such as 64 px"),
        (tiny, 0, r"0 x 0 px.*such as 8 px"),
        (lambda: Teacher(**NARROW), 100, r"100 x 100 px.*multiple of 32.*such as 128 px"),
    ],
)
def test_a_size_that_cannot_be_divided_is_refused(make, side, message):
    with pytest.raises(ValueError, match=message):
        make()(torch.rand(1, 1, side, side))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"orthogonal": -1.0}, "orthogonal = -1.0; the weight of a loss"),
        ({"suppression": math.inf}, "suppression = inf"),
        ({"distillation": 1.5}, "distillation = 1.5"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"heads": 5}, "width = 32, heads = 5"),
        ({"pretrained": True}, "DINO's weights are of the published 384, 12, 6 and 16"),
        ({"stem": True, "patch": 12}, "patch = 12 with a stem; a power of 2 was expected"),
        ({"stem": True, "width": 30}, "a multiple of half of it for the width"),
        ({"orthogonall": 1.0}, "did you mean 'orthogonal'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("clarity", **{**TINY, **arguments})


def test_impossible_teachers_are_refused():
    with pytest.raises(ValueError, match="a ConvNeXt V2 of timm was expected"):
        Teacher("resnet50")
    with pytest.raises(ValueError, match="did you mean 'convnextv2_atto'"):
        Teacher("convnextv2_ato")
    with pytest.raises(ValueError, match="leave out width and depths"):
        Teacher(**NARROW, pretrained=True)
    with pytest.raises(ValueError, match="temperature = 0"):
        distillation_loss(torch.zeros(1, 1), torch.zeros(1, 1), 0)


def test_dino_comes_from_the_cache_with_colours_summed(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"'vit_small_patch16_224.dino' are neither.*connect once"):
        CLARiTy(pretrained=True)
    repository = tmp_path / f"models--timm--{DINO}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    weights = timm_model(DINO, num_classes=0).state_dict()
    save_file(weights, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    vit = CLARiTy(pretrained=True).vit
    stem = weights["patch_embed.proj.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(vit.embed.weight, stem)
    assert torch.equal(vit.blocks[11].mlp.fc2.weight, weights["blocks.11.mlp.fc2.weight"])
    assert torch.equal(vit.positions[0, :, 2, 3], weights["pos_embed"][0, 1 + 2 * 14 + 3])
    start = weights["cls_token"] + weights["pos_embed"][:, :1]
    assert (vit.tokens - start).abs().max() < 0.2 and vit.tokens.std(1).min() > 0


def test_presets_make_networks_that_fit_their_images():
    for name, preset in PRESETS.items():
        model = create_model("clarity", **preset["network"])
        assert preset["image_size"] % model.vit.stride == 0
        if name != "paper":  # of which the defaults are
            assert Teacher(**preset["teacher"]["network"])
    assert model.hparams.learning_rate == PRESETS["paper"]["learning_rate"]


def parameters(**given) -> CLARiTyParameters:
    values = {"preset": "smoke", "dataset": "phantom", "data_dir": None, "run_dir": None, "seed": 0}
    values |= dict.fromkeys(("image_size", "epochs", "batch_size", "learning_rate", "masks"))
    values |= {"accelerator": "cpu", "num_workers": 0, "pretrained": False, "variant": "clarity"}
    return CLARiTyParameters(**{**values, **given})


def test_parameters_of_the_notebook_are_checked():
    assert parameters(dataset="nih", data_dir="here", masks="there").masks == "there"
    with pytest.raises(ValueError, match="did you mean 'no_teacher'"):
        parameters(variant="no_teachr")
    with pytest.raises(ValueError, match="no use with dataset = 'phantom'"):
        parameters(masks="there")
    with pytest.raises(ValueError, match="no use with variant = 'lungs_only'"):
        parameters(masks="there", dataset="nih", data_dir="here", variant="lungs_only")


def test_a_variant_takes_out_what_its_name_says():
    network = PRESETS["smoke"]["network"]
    whole = CLARiTy(**network)
    models = {name: CLARiTy(**{**network, **given}) for name, given in VARIANTS.items()}
    assert models["clarity"].weights == whole.weights
    assert models["no_segment_cam"].segment_cam is None
    assert models["no_attention_pooling"].attention_pool is None
    for name, losses in {
        "no_orthogonal": ["orthogonal"],
        "no_teacher": ["distillation"],
        "no_prior": ["foreground", "suppression"],
    }.items():
        gone = [loss for loss, weight in models[name].weights.items() if not weight]
        assert gone == losses, name
    assert models["teacher"].weights["distillation"] == 0.5
    assert isinstance(models["no_stem"].vit.embed, torch.nn.Conv2d)
    assert set(PRIORS) <= set(VARIANTS) and all(set(of) < set(ORGANS) for of in PRIORS.values())


def test_the_stem_keeps_tokens_and_grid_and_sees_beyond_its_patch():
    plain, stemmed = tiny().eval(), tiny(stem=True).eval()
    images = torch.rand(2, 1, 64, 96)
    for one, other in zip(plain.look(images), stemmed.look(images), strict=True):
        assert one.shape == other.shape
    widths = [layer.out_channels for layer in stemmed.vit.embed if hasattr(layer, "out_channels")]
    assert widths == [8, 16, 32, 32]
    images.requires_grad_()
    for model, expected in ((plain, 8), (stemmed, 15)):  # 15: three of 3, strides 1, 2, 4
        (seen,) = torch.autograd.grad(model.vit.embed(images)[0, :, 3, 3].sum(), images)
        assert seen[0, 0].any(dim=0).sum() == expected


def test_a_teacher_is_asked_once(split, tmp_path, monkeypatch):
    recipe = {"network": NARROW, "epochs": 1, "batch_size": 8, "seed": 0, "accelerator": "cpu"}
    first = teach(split, tmp_path / "teacher", **recipe)
    monkeypatch.setattr("cxrlib.training.fit", None)  # it must not be called
    again = teach(split, tmp_path / "teacher", **recipe)
    assert first.scores.shape == (len(split.train), 14)
    np.testing.assert_array_equal(first.scores, again.scores)
