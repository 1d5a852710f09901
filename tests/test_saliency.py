import gc
from itertools import product

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from captum.attr import IntegratedGradients, Occlusion
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision.models import DenseNet, resnet18
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.transforms import v2

from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset
from cxrlib.metrics import evaluate
from cxrlib.models import create_model
from cxrlib.saliency import (
    METHODS,
    cam,
    default_layer,
    grad_cam,
    grad_cam_plus_plus,
    integrated_gradients,
    occlusion,
    predict_saliency,
    saliency_maps,
    unit_maps,
)

SMALL = {"width": 8, "levels": 2, "growth": 4, "layers": 1}


class Small(nn.Module):
    """Two convolutions, mean, linear; with what a model may have besides."""

    def __init__(self, classes: int = 14) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.deep = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, classes)
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, images):
        self.aside = self.unused(images).mean().item()
        x = nn.functional.relu(self.deep(self.features(images)), inplace=True)
        return self.fc(self.dropout(x.mean(dim=(2, 3))))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def small():
    return Small().double().eval()


@pytest.fixture
def images():
    return torch.rand(3, 1, 32, 32, dtype=torch.float64)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    network = resnet18(num_classes=14)
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return network.double().eval()


@pytest.mark.parametrize(
    ("theirs", "ours"), [(GradCAM, grad_cam), (GradCAMPlusPlus, grad_cam_plus_plus)]
)
def test_the_maps_are_those_of_pytorch_grad_cam(resnet, theirs, ours):
    x = torch.rand(2, 1, 96, 96, dtype=torch.float64)
    # Its Grad-CAM++ adds 1e-6 to squared gradients; they must be large for that to be nothing.
    louder = nn.Sequential(resnet, nn.Linear(14, 14, bias=False).double())
    with torch.no_grad():
        louder[1].weight.copy_(1e4 * torch.eye(14))
    maps = unit_maps(ours(louder, x))
    with theirs(louder, [resnet.layer4]) as other:
        for finding in range(0, 14, 3):
            other(x, [ClassifierOutputTarget(finding)] * 2)
            (A,), (g,) = (
                other.activations_and_grads.activations,
                other.activations_and_grads.gradients,
            )
            values = other.get_cam_image(x, resnet.layer4, None, A.numpy(), g.numpy())
            expected = unit_maps(torch.from_numpy(values))
            torch.testing.assert_close(maps[:, finding], expected, atol=1e-5, rtol=0)
    assert maps.amax() == 1


def test_cam_is_the_sum_of_weighted_features_and_grad_cam_up_to_their_number(resnet):
    x = torch.rand(2, 1, 96, 96, dtype=torch.float64)
    maps = cam(resnet, x)
    seen = []
    with torch.no_grad(), resnet.layer4.register_forward_hook(lambda *call: seen.append(call[2])):
        logits = resnet(x)
    w, A = resnet.fc.weight, seen[0]
    for image, c in product(range(2), (0, 13)):
        naive = sum(w[c, k] * A[image, k] for k in range(512))
        torch.testing.assert_close(maps[image, c], naive.detach())
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + resnet.fc.bias, logits)
    torch.testing.assert_close(maps, 9 * grad_cam(resnet, x))  # 3 x 3 cells


def test_cam_of_densenet_is_after_its_in_place_relu():
    network = DenseNet(4, (2, 2), 8, num_classes=5).eval()
    x = torch.rand(2, 1, 64, 64).expand(-1, 3, -1, -1)
    grey = nn.Sequential(v2.RGB(), network).eval()
    assert default_layer(grey, x[:, :1]) == "1.features"
    maps = cam(grey, x[:, :1])
    with torch.no_grad():
        A = network.features(x).relu()
        expected = torch.einsum("ck,bkhw->bchw", network.classifier.weight, A)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(maps / A[0, 0].numel(), grad_cam(grey, x[:, :1]))


def test_grad_cam_is_its_formula_on_a_head_that_is_not_linear(images):
    model = create_model("lse_lba", **SMALL).double().eval()
    layer = model.network.decoder[1]
    assert default_layer(model, images) == "network.decoder.1"
    seen = []
    with layer.register_forward_hook(lambda *call: seen.append(call[2])):
        logits = model(images).logits
    A = seen[0]
    S = A.detach().sum(dim=(2, 3), keepdim=True)
    first, second = grad_cam(model, images, ["Mass"]), grad_cam_plus_plus(model, images, ["Mass"])
    (g,) = torch.autograd.grad(logits[:, 4].sum(), A)
    weighted = (g.mean(dim=(2, 3), keepdim=True) * A).sum(1, keepdim=True)
    torch.testing.assert_close(first, weighted.detach())
    # Equation 19 as it stands, on features that are all >= 0 here.
    A = A.detach().relu()
    S = A.sum(dim=(2, 3), keepdim=True)
    alpha = g**2 / (2 * g**2 + S * g**3)
    expected = (alpha * g.relu()).nansum(dim=(2, 3), keepdim=True) * seen[0]
    torch.testing.assert_close(second, expected.sum(1, keepdim=True).detach())


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_grad_cam_plus_plus_stands_gradients_of_any_size(small, images, scale):
    with torch.no_grad():
        small.fc.weight.mul_(scale)
    A = nn.functional.relu(small.deep(small.features(images))).detach()
    g = (small.fc.weight.detach() / A[0, 0].numel()).relu()  # the same in every cell
    w = A[0, 0].numel() * g / (2 + g * A.sum(dim=(2, 3))[:, None])  # (B, C, K)
    expected = torch.einsum("bck,bkhw->bchw", w, A)
    maps = grad_cam_plus_plus(small, images)
    torch.testing.assert_close(maps / scale, expected / scale)
    assert unit_maps(maps).amax(dim=(2, 3)).eq(1).all()


def test_integrated_gradients_are_those_of_captum(small, images):
    black, theirs = torch.zeros_like(images), IntegratedGradients(small)
    maps = integrated_gradients(small, images, [0, 9], baseline=0.0, steps=20)
    for row, finding in enumerate([0, 9]):
        expected = theirs.attribute(images, black, target=finding, n_steps=20)[:, 0]
        torch.testing.assert_close(maps[:, row], expected, atol=1e-9, rtol=1e-5)


def test_integrated_gradients_of_a_linear_model_are_weight_times_input(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2)).double()
    baseline = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    maps = integrated_gradients(model, images, baseline=baseline, steps=3, chunk=2)
    expected = model[1].weight.view(1, 2, 32, 32) * (images - baseline)
    torch.testing.assert_close(maps, expected.detach())
    coarse = integrated_gradients(model, images, baseline=baseline, steps=1, stride=8)
    cells = expected.view(3, 2, 4, 8, 4, 8).sum(dim=(3, 5))
    torch.testing.assert_close(coarse, cells.detach())


@pytest.mark.parametrize("baseline", [None, 0.5])
def test_integrated_gradients_add_up_to_the_change_of_the_logits(images, baseline):
    """Completeness, of networks that standardize each image too."""
    model = create_model("lse_lba", **SMALL).double().eval()
    if baseline is None:
        rough = nn.functional.adaptive_avg_pool2d(images, 4)
        start = nn.functional.interpolate(rough, (32, 32), mode="bilinear")
    else:
        model, start = Small().double().eval(), torch.full_like(images, baseline)
    logits = [model(x) for x in (images, start)]
    before, after = (getattr(out, "logits", out) for out in reversed(logits))
    sums = integrated_gradients(model, images, baseline=baseline, steps=300).sum(dim=(2, 3))
    assert (sums - (after - before)).norm() < 0.01 * (after - before).norm()


def test_a_path_on_which_nothing_changes_is_refused(images):
    model = create_model("lse_lba", **SMALL).double()
    with pytest.raises(ValueError, match=r"5 steps miss .* give more, or a baseline with str"):
        integrated_gradients(model, images, baseline=0.0, steps=5)


def naive_occlusion(model, x, patch, stride, fill):
    """Square by square, image by image."""
    (H, W), margin = x.shape[2:], (patch - stride) // 2
    cells = []
    for image, row, column in product(range(len(x)), range(0, H, stride), range(0, W, stride)):
        hidden = x[image : image + 1].clone()
        top, left = max(row - margin, 0), max(column - margin, 0)
        hidden[..., top : row + stride + margin, left : column + stride + margin] = fill[image]
        cells.append(model(x[image : image + 1]) - model(hidden))
    return torch.stack(cells).view(len(x), H // stride, W // stride, -1).permute(0, 3, 1, 2)


@settings(max_examples=15, deadline=None, database=None)
@given(
    stride=st.sampled_from([2, 4, 8]),
    margin=st.integers(0, 5),
    chunk=st.integers(1, 40),
    grey=st.booleans(),
)
def test_occlusion_is_a_loop_over_squares(stride, margin, chunk, grey):
    torch.manual_seed(0)
    model, x = Small(3).double().eval(), torch.rand(2, 1, 16, 8, dtype=torch.float64)
    fill = x.mean(dim=(1, 2, 3)) if grey else torch.full((2,), 0.3)
    maps = occlusion(
        model,
        x,
        patch=stride + 2 * margin,
        stride=stride,
        baseline=None if grey else 0.3,
        chunk=chunk,
    )
    with torch.no_grad():
        expected = naive_occlusion(model, x, stride + 2 * margin, stride, fill)
    torch.testing.assert_close(maps, expected)


def test_occlusion_without_overlap_is_that_of_captum(small, images):
    maps = occlusion(small, images, [5], patch=8, stride=8, baseline=images.flip(-1))
    theirs = Occlusion(small).attribute(
        images, (1, 8, 8), strides=(1, 8, 8), baselines=images.flip(-1), target=5
    )
    # Captum holds float32.
    torch.testing.assert_close(maps.float(), theirs[:, :, ::8, ::8].detach(), atol=1e-6, rtol=0)


OPTIONS = {
    "cam": {"layer": "deep"},
    "grad_cam": {},
    "grad_cam_plus_plus": {"layer": "features"},
    "integrated_gradients": {"steps": 6},
    "occlusion": {"patch": 8, "stride": 8},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_images_and_all_findings_are_each(small, images, method):
    maps = saliency_maps(small, images, method, **OPTIONS[method])
    assert maps.min() >= 0 and maps.max() <= 1 and not maps.requires_grad
    alone = [saliency_maps(small, image[None], method, **OPTIONS[method]) for image in images]
    torch.testing.assert_close(maps, torch.cat(alone))
    chosen = saliency_maps(small, images, method, ["Infiltrate", 0], **OPTIONS[method])
    torch.testing.assert_close(chosen, maps[:, [3, 0]])
    with torch.inference_mode():
        inside = saliency_maps(small, images.clone(), method, **OPTIONS[method])
    torch.testing.assert_close(inside, maps)
    frozen = saliency_maps(small.requires_grad_(False), images, method, **OPTIONS[method])
    torch.testing.assert_close(frozen, maps)


def traces(model):
    """Everything of a model that asking it could change."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    parameters = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    hooks = [
        getattr(module, kind)
        for module in model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    ]
    return weights, modes, parameters, hooks


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(images, method, fails):
    model = Small().double().train()
    model.features[1].eval()
    model.fc.weight.requires_grad_(False)
    model.deep.weight.grad = torch.ones_like(model.deep.weight)
    weights, modes, parameters, hooks = traces(model)
    if fails:
        with pytest.raises(ValueError, match="14 logits"):
            saliency_maps(model, images, method, [14], **OPTIONS[method])
    else:
        saliency_maps(model, images, method, **OPTIONS[method])
    after, modes_after, parameters_after, hooks_after = traces(model)
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert modes_after == modes
    assert {n: flag for n, (flag, _) in parameters_after.items()} == {
        n: flag for n, (flag, _) in parameters.items()
    }
    assert all(parameters_after[name][1] is grad for name, (_, grad) in parameters.items())
    assert not any(hooks) and not any(hooks_after)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("method", METHODS)
def test_fifty_calls_leave_memory_flat(method):
    """No tensor survives a call, not even until the next garbage collection."""
    model, x = Small().eval(), torch.rand(4, 1, 64, 64)
    options = OPTIONS[method] | ({"patch": 16, "stride": 16} if method == "occlusion" else {})

    def tensors():
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    for _ in range(3):
        saliency_maps(model, x, method, **options)
    gc.collect()
    gc.disable()
    try:
        before, bytes_before = tensors(), psutil.Process().memory_info().rss
        for _ in range(50):
            saliency_maps(model, x, method, **options)
        assert tensors() == before
        assert psutil.Process().memory_info().rss - bytes_before < 10e6
    finally:
        gc.enable()


@settings(max_examples=40, deadline=None, database=None)
@given(hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-(2.0**90), 2.0**90, width=32)))
def test_unit_maps_are_the_positive_part_over_its_maximum(values):
    units = unit_maps(torch.from_numpy(values)).numpy()
    assert units.min() >= 0 and units.max() <= 1
    for value, unit in zip(values, units, strict=True):
        if value.max() <= 0:
            assert not unit.any()
            continue
        assert unit.max() == 1
        np.testing.assert_allclose(unit, np.maximum(value, 0) / value.max(), rtol=1e-6)


def test_the_default_layer_is_the_last_map_of_features(small, images, resnet):
    assert default_layer(small, images) == "deep"
    assert default_layer(resnet, images.repeat(1, 1, 3, 3)) == "layer4"
    assert default_layer(resnet, images) == "layer3"  # of layer4 one cell is left
    # In a transformer with channels last, what its permutation gives.
    swin = SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=3)
    assert default_layer(nn.Sequential(v2.RGB(), swin), images.float()) == "1.permute"


class TwoOutputs(nn.Module):
    def forward(self, images):
        return images.mean(dim=(1, 2, 3)), images


class Switched(Small):
    def forward(self, images):
        with torch.no_grad():
            x = self.deep(self.features(images))
        return self.fc(x.mean(dim=(2, 3)))


FAULTS = [
    (lambda m, x: saliency_maps(m, x, "gradcam"), "did you mean 'grad_cam'.*Valid: cam, grad_cam,"),
    (lambda m, x: saliency_maps(m, x, layers="deep"), "no option 'layers'; did you mean 'layer'"),
    (lambda m, x: saliency_maps(m, x, "occlusion", pach=3), "'pach'; .*Valid: patch, stride, base"),
    (lambda m, x: grad_cam(m, x[0]), r"images are \(1, 32, 32\); .*image\[None\]"),
    (lambda m, x: grad_cam(m, x.repeat(1, 3, 1, 1)), r"\(3, 3, 32, 32\); a tensor \(B, 1, H, W\)"),
    (lambda m, x: grad_cam(m, x.numpy()), "images are ndarray; a tensor"),
    (lambda m, x: grad_cam(m, x[:0]), r"\(0, 1, 32, 32\); at least one"),
    (lambda m, x: grad_cam(m, (255 * x).byte()), r"torch.uint8; floats .*scaled\(images\)"),
    (lambda m, x: grad_cam(m, x / (x > 0.01)), "pixels are NaN or infinite"),
    (lambda m, x: grad_cam(m, x, [14]), r"\[14\]; at least one column from 0 to 13 was expected"),
    (lambda m, x: grad_cam(m, x, []), r"findings = \[\]; at least one"),
    (lambda m, x: occlusion(m, x, ["Mas"]), "'Mas' is not a finding; did you mean 'Mass'"),
    (
        lambda m, x: cam(Small(3).double(), x, ["Mass"]),
        "3 logits and .* numbers of columns, 0 to 2",
    ),
    (lambda m, x: grad_cam(m, x, layer="depe"), "layer = 'depe' is no .*did you mean 'deep'"),
    (lambda m, x: grad_cam(m, x, layer=""), "layer = '' is no module of Small"),
    (lambda m, x: grad_cam(m, x, layer="fc"), r"'fc' gives \(3, 14\) for images \(3, 1, 32, 32\)"),
    (lambda m, x: grad_cam(m, x, layer="unused"), "no gradient leads .*does not reach"),
    (lambda m, x: grad_cam(Switched().double(), x, layer="deep"), "switches gradients off"),
    (lambda m, x: cam(m, x, layer="features.0"), "'features.0' that is not so; name the layer"),
    (lambda m, x: cam(create_model("lse_lba", **SMALL).double(), x), "CAM needs logits .* mean"),
    (lambda m, x: grad_cam(nn.Flatten(), x), "no module of Flatten gives a map .*use 'occlusion'"),
    (lambda m, x: occlusion(nn.Conv2d(1, 2, 1).double(), x), r"returned \(3, 2, 32, 32\) for 3 im"),
    (lambda m, x: occlusion(TwoOutputs(), x), "TwoOutputs returned tuple .* its logits alone"),
    (lambda m, x: occlusion(m, x, chunk=0), "chunk = 0; an integer of at least 1"),
    (lambda m, x: occlusion(m, x, patch=8.0), "patch = 8.0; an integer"),
    (lambda m, x: occlusion(m, x, patch=4), "patch = 4 and stride = 16; .*centred"),
    (lambda m, x: occlusion(m, x, patch=17), "patch = 17 and stride = 16; .*centred"),
    (lambda m, x: occlusion(m, x, stride=12), r"stride = 12 does not divide .*\(32, 32\)"),
    (lambda m, x: occlusion(m, x, baseline=x[:2]), r"baseline has shape \(2, 1, 32, 32\), 0 of"),
    (lambda m, x: integrated_gradients(m, x, baseline=np.nan), r"shape \(\), 1 of its values not"),
    (lambda m, x: integrated_gradients(m, x, steps=0), "steps = 0; an integer"),
    (lambda m, x: integrated_gradients(m, x, stride=5), "stride = 5 does not divide"),
]


@pytest.mark.parametrize(("ask", "message"), FAULTS)
def test_what_cannot_be_is_refused(small, images, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(small, images)


def test_a_layer_that_is_not_called_is_refused(small, images):
    small.later = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="'later' is not called when the model runs"):
        grad_cam(small, images, layer="later")


SIDE = 32


@pytest.fixture
def bright():
    """Radiographs with one bright square; every second has it boxed, as a mass."""
    rng = np.random.default_rng(0)
    ids = np.array([f"{n:02d}" for n in range(12)])
    corners = dict(zip(ids, rng.integers(0, 3, (12, 2)) * 8, strict=True))
    boxes = [(name, 4, *(corners[name] / SIDE), *((corners[name] + 8) / SIDE)) for name in ids[::2]]

    def read(name):
        x, y = corners[name]
        pixels = np.full((SIDE, SIDE), 20, np.uint8)
        pixels[y : y + 8, x : x + 8] = 250
        return pixels

    table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
    return CXRDataset("bright", ids, ids, np.ones((12, 14)), table, SIDE, read)


class Brightness(nn.Module):
    """Logits of two findings: how much is bright, and how much is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Conv2d(1, 3, 4, stride=4)
        self.fc = nn.Linear(3, 2)
        with torch.no_grad():
            self.cells.weight.copy_(torch.tensor([1.0, -1.0, 0.0])[:, None, None, None])
            self.cells.bias.copy_(torch.tensor([-4.0, 4.0, 0.0]))
            self.fc.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))

    def forward(self, images):
        return self.fc(self.cells(images).relu_().mean(dim=(2, 3)))


POINTING = {
    "cam": {},
    "grad_cam": {},
    "grad_cam_plus_plus": {},
    "integrated_gradients": {"stride": 4, "baseline": 0.0},
    "occlusion": {"patch": 4, "stride": 4, "baseline": 0.0},
}


@pytest.mark.parametrize(("method", "options"), POINTING.items())
def test_saliency_of_any_classifier_is_scored_as_any_map(bright, method, options):
    model = Brightness().train()
    made = predict_saliency(
        model, bright, method, findings=["Mass", "Edema"], batch_size=5, **options
    )
    assert model.training
    assert made.map_ids.tolist() == bright.image_ids[::2].tolist()
    assert made.known.nonzero()[0].tolist() == [4, 9]
    x = torch.stack([bright[n].image for n in range(12)])
    np.testing.assert_allclose(made.scores[:, [4, 9]], model(x).sigmoid().detach(), rtol=1e-6)
    maps = saliency_maps(model, x[::2], method, **options)
    np.testing.assert_allclose(made.maps[:, [4, 9]], maps, atol=1e-3)
    metrics = evaluate(made, bright, replicates=20)
    assert metrics["localization"]["pointing"]["per_finding"]["Mass"]["value"] == 1


def test_without_boxes_there_are_only_scores(bright):
    made = predict_saliency(
        Brightness(), bright.subset(np.array([1, 3])), findings=["Mass", "Edema"], batch_size=5
    )
    assert len(made.scores) == 2 and not len(made.maps)


def test_predictions_refuse_before_the_work(bright):
    read = []
    asked = bright.reading(lambda name: read.append(name) or bright.read_pixels(name))
    for message, arguments in (
        ("2 logits, but findings name 14", {}),
        ("'Mas' is not a finding", {"findings": ["Mas", "Edema"]}),
        ("no module", {"findings": ["Mass", "Edema"], "layer": "x"}),
        ("no method 'cma'", {"findings": ["Mass", "Edema"], "method": "cma"}),
    ):
        with pytest.raises(ValueError, match=message):
            predict_saliency(Brightness(), asked, batch_size=2, **arguments)
    assert set(read) == {"00"}
