"""``cxrlib export``: a trained model for other programs."""

import argparse
from pathlib import Path
from typing import Any

from cxrlib.cli.options import refuse_output
from cxrlib.cli.predict import add_model, open_model


def add(commands: Any) -> None:
    """Add the command."""
    about = "write a trained model as ONNX, compared with the original"
    export = commands.add_parser("export", help=about)
    export.add_argument("--onnx", type=Path, required=True, metavar="ONNX", help="the file")
    add_model(export)
    export.set_defaults(do=_export)


def _export(options: argparse.Namespace) -> None:
    refuse_output(options.onnx, "onnx")
    from cxrlib import onnx_file

    described = open_model(options)
    worst = onnx_file.export(described, options.onnx)
    size = described.about["image_size"]
    print(
        f"{options.onnx}: images (B, 1, {size}, {size}) -> logits, maps; differs from the model by "
        f"{worst:.1e} at most"
    )
