import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cxrlib.datasets.base import Batch, Split, Truth
from cxrlib.inference import predict
from cxrlib.losses import multilabel_cross_entropy
from cxrlib.metrics import evaluate
from cxrlib.models import AttentionMining, create_model
from cxrlib.models.attention_mining import MEAN, erased_sets, one_present
from cxrlib.models.mining_network import MSA, RARE
from cxrlib.models.mining_stages import (
    PRESETS,
    VARIANTS,
    AttentionMiningParameters,
    create_variant,
    fit_stages,
)
from cxrlib.phantom import dataset as phantom
from cxrlib.saliency import saliency_maps

TINY = {"encoder": "resnet18", "width": 16}


def mining(**arguments) -> AttentionMining:
    """A tiny model whose networks differ, as after training."""
    torch.manual_seed(0)
    model = create_model("attention_mining", **TINY, **arguments)
    with torch.no_grad():
        for f in model.networks:
            for weights in f.parameters():
                weights.add_(0.05 * torch.randn_like(weights))
    return model


@pytest.fixture
def batch() -> Batch:
    """Three images have findings, two have none, of which one has an unknown label."""
    torch.manual_seed(1)
    labels = torch.zeros(5, 14)
    labels[[0, 0, 1, 2], [3, 7, 0, 13]] = 1
    labels[4, 2] = torch.nan
    return Batch(torch.rand(5, 1, 64, 64), labels)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return phantom.load(64, n_train=32, n_val=8, n_test=12)


@pytest.mark.parametrize(("msa", "side"), [(True, 16), (False, 4)])
def test_maps_are_the_union_of_all_steps(msa, side):
    model, images = mining(steps=2, msa=msa).eval(), torch.rand(2, 1, 128, 128)
    output, single = model(images), model.by_step(images)
    assert output.logits.shape == (2, 14) and output.maps.shape == (2, 14, side, side)
    assert output.maps.dtype == output.logits.dtype == torch.float32
    assert single.maps.shape == (3, 2, 14, side, side)
    assert single.maps.min() == 0 and output.maps.max() == 1
    assert not torch.equal(single.maps[0], single.maps[1])
    assert torch.equal(output.maps, single.maps.amax(0))
    assert torch.equal(output.logits, single.logits[-1])
    mean = mining(steps=2, msa=msa, union="mean").eval()(images).maps
    torch.testing.assert_close(mean, single.maps.mean(0))


@pytest.mark.parametrize("msa", [True, False])
def test_without_steps_it_is_cam(msa):
    model, images = mining(steps=0, msa=msa).eval(), torch.rand(3, 1, 64, 96)
    (f,) = model.networks
    A, (weight, bias) = f(images), f.head.parameters()
    M = torch.einsum("ck,bkhw->bchw", weight[:, :, 0, 0], A).relu()
    naive = M / M.amax((-2, -1), keepdim=True).clamp(min=1e-12)
    output = model(images)
    torch.testing.assert_close(output.maps, naive)
    torch.testing.assert_close(output.logits, A.mean((-2, -1)) @ weight[:, :, 0, 0].T + bias)
    layer = "networks.0.msa" if msa else "networks.0.encoder.layer4"
    torch.testing.assert_close(saliency_maps(model, images, "cam", layer=layer), output.maps)


def test_without_steps_the_loss_is_cross_entropy(batch):
    model = mining(steps=0)
    losses = model.losses(batch, one_present(batch.labels))
    expected = multilabel_cross_entropy(model(batch.images).logits, batch.labels)
    assert losses.keys() == {"loss"} and torch.equal(losses["loss"], expected)


def test_training_starts_from_rare_findings():
    model = create_model("attention_mining", steps=0, **TINY)
    assert set(model.networks[0].head.bias.tolist()) == {RARE}
    assert model(torch.rand(8, 1, 64, 64)).maps.amax((-2, -1)).gt(0).float().mean() > 0.5


@pytest.mark.parametrize(("msa", "side"), [(True, 16), (False, 8)])
def test_strides_end_the_encoder_and_give_the_grid(msa, side):
    model = mining(steps=0, msa=msa, strides=(4, 8))
    assert model(torch.rand(2, 1, 64, 64)).maps.shape[-1] == side
    assert not any("layer3" in name for name, _ in model.named_parameters())
    with pytest.raises(ValueError, match=r"60 x 60 px.*multiple of 8"):
        model(torch.rand(1, 1, 60, 60))


@pytest.mark.parametrize("strides", [(), (8, 4), (4, 4), (4, 6)])
def test_impossible_strides_are_refused(strides):
    with pytest.raises(ValueError, match="ascending, were expected"):
        mining(strides=strides)


def test_aggregation_is_a_sum_over_strides():
    torch.manual_seed(0)
    msa = MSA([3, 5], 4).eval()
    fine, coarse = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)
    enlarged = nn.Upsample(scale_factor=2, mode="bilinear")(msa.side[1](coarse))
    torch.testing.assert_close(msa([fine, coarse]), msa.norm(msa.side[0](fine) + enlarged))
    mirrored = msa([fine.flip(-1), coarse.flip(-1)]).flip(-1)  # no cell leans to one side
    torch.testing.assert_close(mirrored, msa([fine, coarse]))


def test_the_erased_set_only_grows(batch):
    model = mining(steps=4).eval()
    chosen = torch.tensor([3, 0, 13, -1, -1])
    maps = model.by_step(batch.images).maps
    sets = erased_sets(maps[:4], chosen, model.tau)
    assert sets.shape == (4, 5, 1, 8, 8)
    assert (sets[1:] >= sets[:-1]).all()
    area = sets.sum((-3, -2, -1))
    assert (area[-1, :3] > area[0, :3]).any()
    assert (maps.cummax(0).values.sum((-2, -1)).diff(dim=0) >= 0).all()  # and so does the union
    for t in range(4):  # E_t = E_(t-1) or M >= tau
        before = sets[t - 1] if t else torch.zeros_like(sets[0])
        for image, finding in enumerate([3, 0, 13]):
            above = maps[t, image, finding] >= 0.5
            assert torch.equal(sets[t, image, 0], before[image, 0] | above)


def test_images_without_findings_are_never_erased(batch):
    for _ in range(20):
        chosen = one_present(batch.labels)
        assert chosen[1:].tolist() == [0, 13, -1, -1] and chosen[0] in (3, 7)
        maps = torch.ones(2, 5, 14, 4, 4)
        assert not erased_sets(maps, chosen, 0.5)[:, 3:].any()
        assert erased_sets(maps, chosen, 0.5)[:, :3].all()
    healthy = Batch(batch.images[3:], batch.labels[3:])
    for erase in ("features", "image"):
        losses = mining(steps=1, erase=erase).losses(healthy, one_present(healthy.labels))
        assert torch.equal(losses["hidden"], losses["whole"]) and losses["kp"] > 0


def test_every_finding_of_an_image_gets_its_turn(batch):
    torch.manual_seed(0)
    assert {int(one_present(batch.labels)[0]) for _ in range(30)} == {3, 7}
    draws = [one_present(batch.labels, torch.Generator().manual_seed(2)) for _ in range(2)]
    assert torch.equal(*draws)


def test_a_map_without_evidence_hides_nothing():
    assert not erased_sets(torch.zeros(1, 1, 14, 4, 4), torch.tensor([2]), 0.5).any()


@pytest.mark.parametrize("erase", ["features", "image"])
def test_the_hidden_cells_have_no_say(batch, erase):
    """The logits without E are those of features, or pixels, that are not there."""
    model = mining(steps=1, erase=erase)
    chosen = one_present(batch.labels)
    f1 = model.networks[1]
    E = erased_sets(model.by_step(batch.images).maps[:1], chosen, model.tau)[0]
    assert 0 < E[:3].float().mean() < 1
    if erase == "features":
        scores = f1.head(f1(batch.images) * (1 - E.float()))
    else:
        pixels = E.repeat_interleave(8, -1).repeat_interleave(8, -2)
        scores = f1.head(f1(torch.where(pixels, MEAN, batch.images)))
    losses = model.losses(batch, chosen)
    hidden = multilabel_cross_entropy(scores.mean((-2, -1)), batch.labels)
    torch.testing.assert_close(losses["hidden"], hidden)
    assert abs(losses["hidden"] - losses["whole"]) > 1e-5
    torch.testing.assert_close(losses["loss"], losses["whole"] + losses["hidden"] + losses["kp"])


@pytest.mark.parametrize("kp_on", ["features", "responses", "both"])
def test_knowledge_preservation_is_a_mean_square(batch, kp_on):
    model = mining(steps=2, kp_on=kp_on)
    A0, A2 = (model.networks[t](batch.images).mean((-2, -1)) for t in (0, 2))
    z0, _, z2 = model.by_step(batch.images).logits
    terms = {"features": (A0 - A2).square().mean(), "responses": (z0 - z2).square().mean()}
    expected = sum(terms.values()) if kp_on == "both" else terms[kp_on]
    torch.testing.assert_close(model.losses(batch, one_present(batch.labels))["kp"], expected)


def test_a_step_starts_where_the_last_one_ended(batch):
    model = mining(steps=2)
    model.begin(1)
    z0, z1 = model.by_step(batch.images).logits
    assert torch.equal(z0, z1)
    assert model.losses(batch, one_present(batch.labels))["kp"] == 0
    assert model.learning_rate == pytest.approx(1e-5)
    model.begin(0)
    assert model.learning_rate == 1e-4 and model(batch.images).maps.shape[1] == 14


def test_only_the_trained_network_learns(batch):
    model = mining(steps=2)
    for t in range(3):
        model.begin(t)
        model.zero_grad()
        model.losses(batch, one_present(batch.labels))["loss"].backward()
        for step, f in enumerate(model.networks):
            has = [weights.grad is not None for weights in f.encoder.layer4.parameters()]
            assert all(has) if step == t else not any(has)
            assert {weights.requires_grad for weights in f.parameters()} == {step == t}
    assert all(weights.grad is not None for weights in model.networks[2].parameters())


def test_hidden_images_do_not_change_batch_statistics(batch):
    model = mining(steps=1, erase="image")
    model.train()
    before = copy.deepcopy(model.state_dict())
    model.losses(batch, one_present(batch.labels))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.begin(0)
    model.losses(batch, one_present(batch.labels))
    statistics = "networks.0.encoder.bn1.running_mean"
    assert not torch.equal(model.state_dict()[statistics], before[statistics])


def mined(batch: Batch, kp_weight: float) -> tuple[float, float]:
    """How far answers to the images are from the base network's, and the hidden loss."""
    torch.manual_seed(0)
    model = AttentionMining(steps=1, kp_weight=kp_weight, **TINY)
    optimizer = torch.optim.SGD(model.networks[1].parameters(), 0.1 / (1 + kp_weight))
    small = Batch(batch.images[..., :32, :32], batch.labels)  # a map of 4 x 4 cells
    for _ in range(40):
        losses = model.losses(small, torch.tensor([3, 0, 13, -1, -1]))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    z0, z1 = model.by_step(small.images).logits
    return float((z0 - z1).detach().abs().max()), float(losses["hidden"].detach())


def test_preserving_knowledge_keeps_the_base_network(batch):
    free, some, much = (mined(batch, kp_weight) for kp_weight in (0.0, 10.0, 1e4))
    assert free[0] > 0.1 and much[0] < 0.01 * free[0]
    assert much[0] < some[0] < free[0]
    assert free[1] < some[1] < much[1]  # and what is mined is the price


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "steps = -1; a number of mining steps from 0 up"),
        ({"tau": 0}, "tau = 0; a share .* above 0 to 1"),
        ({"kp_weight": math.inf}, "kp_weight = inf; a finite number"),
        ({"erase": "images"}, "did you mean 'image'.*Valid: features, image"),
        ({"kp_on": "logits"}, "'logits' was given; Valid: features, responses, both"),
        ({"union": "sum"}, "Valid: max, mean"),
        ({"pooling": "maxx"}, "did you mean 'max'"),
        ({"taw": 0.5}, "did you mean 'tau'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("attention_mining", **TINY, **arguments)


@pytest.mark.parametrize("side", [0, 48])
def test_a_size_that_cannot_be_divided_is_refused(side):
    with pytest.raises(ValueError, match=rf"{side} x {side} px.*multiple of 32"):
        mining(steps=0)(torch.rand(2, 1, side, side))


class Killed(Exception):
    pass


class Interrupted:
    """Pixels that cannot be read any more after so many batches."""

    def __init__(self, read, batches: int) -> None:
        self.read, self.left = read, batches

    def batch(self, ids: np.ndarray) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise Killed
        read = self.read
        return read.batch(ids) if hasattr(read, "batch") else np.stack([*map(read, ids.tolist())])


def trained(split: Split, folder) -> tuple[AttentionMining, pd.DataFrame]:
    torch.manual_seed(0)
    model = AttentionMining(steps=2, learning_rate=1e-2, **TINY)
    folder.mkdir(exist_ok=True)
    history = fit_stages(
        model, split, folder, epochs=2, mining_epochs=2, batch_size=8, accelerator="cpu"
    )
    return model, history.drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(split, tmp_path_factory) -> tuple[AttentionMining, pd.DataFrame]:
    return trained(split, tmp_path_factory.mktemp("whole"))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_stages_follow_each_other(whole):
    model, history = whole
    assert history["stage"].tolist() == [0, 0, 1, 1, 2, 2]
    assert history["epoch"].tolist() == [1, 2] * 3
    terms = history[["whole", "hidden", "kp"]]
    assert terms[:2].isna().all(axis=None) and terms[2:].notna().all(axis=None)
    total = terms[2:].sum(axis=1)
    assert history["loss"][2:].tolist() == pytest.approx(total.tolist(), rel=1e-4)
    f0, f1, f2 = model.networks
    assert not same_weights(f0, f1) and not same_weights(f1, f2)
    assert torch.equal(f0.encoder.bn1.running_mean, f2.encoder.bn1.running_mean)
    assert not model.training and model.step == 2


def test_the_base_network_is_frozen_while_mining(split, whole, tmp_path):
    torch.manual_seed(0)
    base = AttentionMining(steps=0, learning_rate=1e-2, **TINY)
    history = fit_stages(
        base, split, tmp_path, epochs=2, mining_epochs=1, batch_size=8, accelerator="cpu"
    )
    assert same_weights(base.networks[0], whole[0].networks[0])
    expected = whole[1]["val_loss"][:2].tolist()
    assert history["val_loss"].tolist() == expected


def test_a_kill_in_stage_2_resumes_in_it(split, whole, tmp_path):
    def run(batches: int) -> tuple[AttentionMining, pd.DataFrame]:
        train = split.train.reading(Interrupted(split.train.read_pixels, batches))
        return trained(Split(train, split.val, split.test, split.data_hash), tmp_path)

    with pytest.raises(Killed):
        run(5 * 4 + 2)  # an epoch has 4 batches; this one is the second of stage 2
    done = [(tmp_path / f"step_{t}" / "history.json").exists() for t in range(3)]
    assert done == [True, True, False]
    model, history = run(4)  # what is left: anything that was done anew would need more
    assert same_weights(model, whole[0])
    pd.testing.assert_frame_equal(history, whole[1])


def test_predictions_are_scored(split, whole):
    model, _ = whole
    predictions = predict(model, split.test, batch_size=8, accelerator="cpu")
    assert predictions.maps.shape[1:] == (14, 8, 8)
    pointing = evaluate(predictions, split.test)["localization"]["pointing"]["micro"]
    assert pointing["n"] == len(Truth(split.test))


def test_the_smoke_preset_trains(tmp_path):
    preset = PRESETS["smoke"]
    split = phantom.load(preset["image_size"], n_train=40, n_val=8, n_test=8)
    model = create_variant("am_kp", steps=preset["steps"], learning_rate=1e-3, **preset["network"])
    names = ("epochs", "mining_epochs", "batch_size")
    schedule = {name: preset[name] for name in names}
    history = fit_stages(model, split, tmp_path, **schedule, accelerator="cpu")
    assert history["stage"].tolist() == [0, 1, 2]
    assert history[["loss", "val_loss"]].gt(0).all(axis=None)


def test_presets_make_networks_that_fit_their_images():
    for preset in PRESETS.values():
        assert preset.keys() == PRESETS["quick"].keys()
        model = create_variant("msa", steps=preset["steps"], **preset["network"]).eval()
        assert preset["image_size"] % 32 == 0 and len(model.networks) == 1
    default, paper = create_model("attention_mining").hparams, PRESETS["paper"]
    assert default.steps == paper["steps"] and default.learning_rate == paper["learning_rate"]
    assert paper["network"] == {}


@pytest.mark.parametrize(
    ("variant", "networks", "stride", "kp_weight"),
    [("cam", 1, 32, 1), ("msa", 1, 8, 1), ("am", 3, 8, 0), ("am_kp", 3, 8, 1)],
)
def test_the_arms_of_the_ablation(variant, networks, stride, kp_weight):
    model = create_variant(variant, steps=2, **TINY)
    assert len(model.networks) == networks and model.kp_weight == kp_weight
    assert model(torch.rand(2, 1, 64, 64)).maps.shape[-1] == 64 // stride
    assert list(VARIANTS) == ["cam", "msa", "am", "am_kp"]


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="variant = 'am_pk'; did you mean 'am_kp'"):
        create_variant("am_pk", **TINY)
    values = {"preset": "smoke", "dataset": "phantom", "data_dir": None, "run_dir": None, "seed": 0}
    values |= dict.fromkeys(("image_size", "epochs", "batch_size", "learning_rate", "steps"))
    values |= {"accelerator": "cpu", "num_workers": 0, "pretrained": False, "mining_epochs": None}
    values |= {"variant": "am", "tau": 0.5, "kp_weight": 1.0, "base": None}
    assert AttentionMiningParameters(**values).variant == "am"
    for wrong, message in (
        ({"variant": "map"}, "variant = 'map'"),
        ({"tau": 1.5}, "tau = 1.5"),
        ({"kp_weight": -1.0}, "kp_weight = -1.0"),
        ({"steps": -2}, "steps = -2"),
        ({"mining_epochs": 0}, "mining_epochs = 0; at least 1"),
        ({"variant": "cam", "base": "runs/msa"}, "base = 'runs/msa' with variant = 'cam'"),
    ):
        with pytest.raises(ValueError, match=message):
            AttentionMiningParameters(**{**values, **wrong})
