import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from cxrlib import cli, onnx_file, weights
from cxrlib.models.base import Output
from cxrlib.weights import Described, open_pretrained


class Doubled(nn.Module):
    """Twice the mean is the logit, the image is the map of all findings."""

    def forward(self, images):
        logits = 2 * images.mean(dim=(-2, -1)).expand(-1, 14)
        return Output(logits, images.expand(-1, 14, -1, -1))


@pytest.fixture(scope="module")
def described() -> Described:
    return Described(Doubled().eval(), {"image_size": 64, "method": "doubled"})


@pytest.mark.parametrize("name", weights.SHIPPED)
def test_every_method_says_the_same_as_onnx(name):
    model, about = open_pretrained(name)
    data = onnx_file.to_onnx(model, about["image_size"], about)
    assert onnx_file.difference(data, model, about["image_size"]) < 1e-4


def test_the_file_takes_batches_of_any_size_and_says_what_it_is(described, tmp_path):
    path = tmp_path / "new" / "model.onnx"
    assert onnx_file.export(described, path) < 1e-6
    onnx.checker.check_model(path)
    properties = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert properties["method"] == "doubled" and properties["notice"] == weights.NOTICE
    session = onnxruntime.InferenceSession(path)
    for count in (1, 5):
        images = np.random.default_rng(0).random((count, 1, 64, 64), np.float32)
        logits, maps = session.run(["logits", "maps"], {"images": images})
        np.testing.assert_allclose(logits[:, 3], 2 * images.mean(axis=(1, 2, 3)), rtol=1e-5)
        np.testing.assert_array_equal(maps[:, 13], images[:, 0])


def test_a_file_that_differs_is_not_written(described, tmp_path, monkeypatch):
    spoilt = onnx_file.to_onnx(Doubled().eval(), 64, {})
    monkeypatch.setattr(onnx_file, "to_onnx", lambda *arguments: spoilt)
    model = nn.Sequential(described.model)
    model.forward = lambda images: Output(*(1.01 * part for part in Doubled()(images)))
    with pytest.raises(
        RuntimeError, match=r"a.onnx was not written: it differs .* more than 1e-04"
    ):
        onnx_file.export(described._replace(model=model), tmp_path / "a.onnx")
    assert [*tmp_path.iterdir()] == []


def test_the_command_tells_the_largest_difference(described, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(weights, "open_pretrained", lambda name: described)
    path = tmp_path / "model.onnx"
    assert cli.main(["export", "--onnx", str(path), "--model", "pylon"]) == 0
    assert "images (B, 1, 64, 64) -> logits, maps; differs from the model by" in (
        capsys.readouterr().out
    )
    assert path.exists()


@pytest.mark.parametrize("missing", onnx_file.PACKAGES)
def test_without_the_extra_the_command_says_how_to_get_it(
    missing, described, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(weights, "open_pretrained", lambda name: described)
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["export", "--onnx", str(tmp_path / "a.onnx")]) == 1
    assert 'python -m pip install -e ".[onnx]"' in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--onnx", "a.pb"], "a.pb does not end in .onnx"),
        (["--onnx", "a.onnx", "--model", "pilon"], "did you mean 'pylon'?"),
        (["--onnx", "a.onnx", "--run", "nowhere"], "nowhere holds no finished run"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", *arguments]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert [*tmp_path.iterdir()] == []
    assert torch.is_grad_enabled()
