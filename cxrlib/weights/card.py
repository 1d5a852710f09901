"""The model card of a shipped model, made from what its file says of it."""

from collections.abc import Mapping
from typing import Any

from cxrlib.metrics import show
from cxrlib.weights import NOTICE, SHIPPED

CONTROLS = {
    "location_prior": "location prior",
    "centre_prior": "centre prior",
    "random": "random map",
    "grid_ceiling": "grid ceiling",
}


def card(about: Mapping[str, Any], size: int) -> str:
    """Markdown: what the model is, its numbers beside the controls, where it comes from.

    Args:
        about: the header of its file.
        size: of the file, bytes.
    """
    title, images, half = SHIPPED[about["method"]], about["images"], about["half"]
    options = ", ".join(f"{name} {value}" for name, value in sorted(about["options"].items()))
    arguments = ", ".join(f"{name}={value!r}" for name, value in sorted(about["arguments"].items()))
    located = [about["numbers"][source]["pointing"] for source in ("model", "location_prior")]
    beside = verdict(*located)
    rows = {"this model": about["numbers"]["model"]}
    rows |= {label: about["numbers"][key] for key, label in CONTROLS.items()}
    lines = [
        f"# {title}, trained on the {about['dataset']}",
        "",
        f'`cxrlib.load_pretrained("{about["method"]}")`, {size / 1e6:.2f} MB in half precision, '
        "licence Apache-2.0.",
        "",
        f"**{NOTICE}** {' '.join(about['notes'])}",
        "",
        "## What it is for",
        "",
        "To show at once what the maps of this method look like, and to try the tools of the",
        "library on. It is not for patients, and not for comparing methods: the book does that,",
        "over several seeds.",
        "",
        "## Trained on",
        "",
        f"{images['train']:,} images of {about['image_size']} px from the {about['dataset']} "
        f"({options}), seed {about['seed']}; preset `{about['preset']}`, {about['epochs']} epochs, "
        f"batches of {about['batch_size']}, learning rate {about['learning_rate']:g}. "
        f"Chosen by the loss on {images['val']:,} others. One seed, not the best of several.",
        "",
        "## Numbers",
        "",
        f"On {images['test']:,} test images; 95 % intervals over patients, of this one model.",
        f"Mean AUROC over findings: {show(about['numbers']['auroc'])}.",
        "",
        "| Maps, mean over findings | pointing | continuous Dice |",
        "|---|---|---|",
        *(
            f"| {name} | {show(of['pointing'])} | {show(of['continuous_dice'])} |"
            for name, of in rows.items()
        ),
        "",
        f"n = {about['numbers']['model']['pointing']['n']:,} pairs of image and finding. "
        f"Its maps point {beside} the location prior, which never looks at the image.",
        "",
        f"Half precision changes a score by {half['score']:.1e} at most, the mean AUROC by "
        f"{half['auroc']:+.1e} and pointing by {half['pointing']:+.1e}.",
        "",
        "## Provenance",
        "",
        f"- model: `create_model({about['method']!r}, {arguments})`",
        f"- run `{about['run']}`, hash of its files `{about['run_hash']}`",
        f"- commit `{about['commit']}`, torch {about['torch']}",
        f"- data `{about['data_hash']}`, split `{about['split_hash']}`",
        "",
        "The numbers are the run's own, in full precision. `python -m cxrlib.weights RUN` makes",
        "file and card anew from another run.",
        "",
    ]
    return "\n".join(lines)


def verdict(model: Mapping[str, Any], prior: Mapping[str, Any]) -> str:
    """How one number stands to another by their intervals.

    Args:
        model, prior: ``value``, ``low`` and ``high`` of each.

    Returns:
        ``"better than"`` or ``"worse than"`` where the intervals do not meet, else
        ``"about as well as"``.

    >>> verdict({"low": 0.39, "high": 0.43}, {"low": 0.38, "high": 0.42})
    'about as well as'
    """
    if model["low"] > prior["high"]:
        return "better than"
    return "worse than" if model["high"] < prior["low"] else "about as well as"
