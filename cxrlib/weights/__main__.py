"""``python -m cxrlib.weights RUN [RUN ...]``: ship the models of finished runs."""

import argparse
from pathlib import Path

from cxrlib.weights.ship import ship

parser = argparse.ArgumentParser("python -m cxrlib.weights", description=__doc__)
parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
parser.add_argument("--to", type=Path, metavar="FOLDER", help="default: into the library")
options = parser.parse_args()
for run in options.runs:
    path = ship(run.expanduser(), options.to)
    print(f"{path}: {path.stat().st_size:,} bytes")
