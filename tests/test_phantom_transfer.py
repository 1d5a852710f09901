import json

import numpy as np
import pytest
import torch
from PIL import Image

from cxrlib.phantom import transfer

IMAGES = [f"{patient:08}_000.png" for patient in range(1, 25)]
LABELS = ["Mass", "Nodule"] * 12


@pytest.fixture
def release(tmp_path):
    """24 tiny radiographs laid out as ChestX-ray14; the last four, with boxes, are for testing."""
    folder = tmp_path / "release"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in IMAGES:
        Image.fromarray(rng.integers(0, 256, (80, 80), np.uint8)).save(folder / "images" / name)
    rows = [f"{name},{label}" for name, label in zip(IMAGES, LABELS, strict=True)]
    patients = [f"{row},{patient}" for patient, row in enumerate(rows, 1)]
    write = {
        "Data_Entry_2017_v2020.csv": ["Image Index,Finding Labels,Patient ID", *patients],
        "train_val_list.txt": IMAGES[:20],
        "test_list.txt": IMAGES[20:],
        "BBox_List_2017.csv": [
            "Image Index,Finding Label,Bbox x,Bbox y,Bbox w,Bbox h",
            *(f"{row},100,200,300,400" for row in rows[20:]),
        ],
    }
    for name, lines in write.items():
        (folder / name).write_text("\n".join(lines))
    return folder


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    phantom = {"n_train": 24, "n_val": 8, "n_test": 8, "prevalence": 0.3}
    smaller = {"image_size": 64, "batch_size": 8, "width": 4, "phantom": phantom}
    monkeypatch.setattr(transfer, "SETTINGS", {**transfer.SETTINGS, **smaller})


def test_a_run_trains_on_the_phantom_and_scores_real_boxes(release, small, tmp_path):
    run_dir = tmp_path / "run"
    words = ["--data-dir", str(release), "--run-dir", str(run_dir), "--epochs", "1"]
    transfer.main([*words, "--accelerator", "cpu"])
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["localization"]["pointing"]["micro"]["n"] == 4
    assert metrics["controls"]["random"]["pointing"]["per_finding"]["Mass"]["n"] == 2
    written = (run_dir / "metrics.json").read_bytes()
    transfer.main([*words, "--accelerator", "cpu"])  # finished: shown again, not computed again
    assert (run_dir / "metrics.json").read_bytes() == written


def test_no_real_image_takes_part_in_training(release, small, tmp_path):
    parameters = transfer.parameters_of(
        ["--data-dir", str(release), "--run-dir", str(tmp_path / "run")]
    )
    split = transfer.load(parameters, {**transfer.SETTINGS, "seed": 0})
    assert split.train.name == split.val.name == "phantom" and split.test.name == "nih"
    assert set(split.test.image_ids) == {name.removesuffix(".png") for name in IMAGES[20:]}


def test_a_place_sees_only_its_surroundings():
    network = transfer.PatchNet(width=4).eval()
    inputs = torch.rand(1, 4, 128, 128, requires_grad=True)
    network.features(inputs)[0, :, 8, 8].sum().backward()
    seen = torch.nonzero(inputs.grad.abs().sum(dim=(0, 1)))
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).max() <= 72


def test_local_normalization_undoes_exposure():
    image = torch.rand(1, 1, 64, 64)
    normal = transfer.normalize_locally(image)
    torch.testing.assert_close(transfer.normalize_locally(image + 0.3), normal, atol=1e-4, rtol=0)
    assert (transfer.normalize_locally(0.5 * image) - normal).abs().mean() < 0.1 * normal.std()
    assert not transfer.normalize_locally(torch.full((1, 1, 64, 64), 0.7)).abs().gt(1e-4).any()


def test_blur_keeps_what_is_even_and_spreads_a_point_like_a_gaussian():
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1
    spread = transfer.blur(point, 4.0)[0, 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    x = torch.arange(65.0) - 32
    assert (spread.sum(dim=0) * x**2).sum().sqrt().item() == pytest.approx(4, rel=0.05)


def test_coordinates_run_from_minus_one_to_one():
    x, y = transfer.coordinates(torch.rand(1, 1, 3, 5))[0]
    assert x[0].tolist() == [-1, -0.5, 0, 0.5, 1] and y[:, 0].tolist() == [-1, 0, 1]
