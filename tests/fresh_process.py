"""Draw, cache, train, predict and score in a process of its own; what came out goes to a file.

``python tests/fresh_process.py folder images workers threads``: the folder is new and gets
``numbers.npz``; ``images`` is a folder of images with a table, as the reader of folders takes it.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from cxrlib import datasets, metrics, training
from cxrlib.inference import loader, predict
from cxrlib.models import create_model
from cxrlib.phantom import dataset as phantom

TINY = {"width": 8, "levels": 2, "growth": 4, "layers": 1}
SIZES = {"n_train": 48, "n_val": 12, "n_test": 24}


def run_process(folder: Path, images: Path, workers: int, threads: int) -> None:
    """Everything that a seed decides, each under its name."""
    os.environ["CXRLIB_CACHE"] = str(folder / "cache")
    torch.set_num_threads(threads)
    split, own = phantom.load(64, **SIZES), datasets.load("folder", images, 32)
    batches = [batch.images for batch in loader(own.train, 2, workers)]
    torch.manual_seed(0)
    model = create_model("lse_lba", **TINY)
    how = {"batch_size": 16, "accelerator": "cpu", "num_workers": workers}
    history = training.fit(model, split, folder, epochs=2, **how)
    predictions = predict(model, split.test, **how)
    scored = metrics.evaluate(predictions, split.test, replicates=50)
    np.savez(
        folder / "numbers.npz",
        **{f"weight {name}": value.numpy() for name, value in model.state_dict().items()},
        phantom=split.train.read_pixels.batch(split.train.image_ids),
        masks=np.stack([split.test.read_masks(name) for name in split.test.image_ids]),
        cached=torch.cat(batches).numpy(),
        history=history.drop(columns="seconds").to_numpy(float),
        scores=predictions.scores,
        maps=predictions.maps,
        bootstrap=metrics.bootstrap.patient_weights(split.test.patient_ids, 50).counts,
        metrics=np.array(json.dumps(scored, sort_keys=True)),
    )


if __name__ == "__main__":
    run_process(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
