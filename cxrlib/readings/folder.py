"""The folder of a set of readings: a picture of each image, ``predictions.json``, ``report.html``.

The folder is written under a temporary name and then renamed: one that exists is complete.
"""

import base64
import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from cxrlib import __version__
from cxrlib.files import explain_os_error, write_atomic, write_json
from cxrlib.findings import FINDINGS
from cxrlib.metrics.listing import spoken
from cxrlib.metrics.markup import document, table
from cxrlib.readings import SHARE, Reading
from cxrlib.readings.pictures import picture
from cxrlib.weights import NOTICE, SHIPPED, Described

TOP = 3
"""Findings that are shown of each image, those with the highest scores."""

_LOOK = """\
Each row is one image: the radiograph, then the same under the map of a finding. Colour goes from a
map's minimum to its maximum, so that weak maps look as bright as strong ones; the caption gives the
maximum. White cross: the maximum. That a map is drawn does not mean that the finding is there:
some are drawn of every image, however low their scores."""


def notice(described: Described) -> str:
    """What every picture, document and page says of itself."""
    return f"{NOTICE} {described.origin}"


def write(
    folder: Path,
    described: Described,
    answers: Iterable[tuple[Path, Reading | str]],
    findings: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Write everything.

    Args:
        folder: must be absent or empty.
        described: the model that was asked.
        answers: from :func:`cxrlib.readings.read`, and files with what is wrong with them.
        findings: to show, indices; None: of each image the :data:`TOP` ones.

    Returns:
        what ``predictions.json`` holds: ``notice``, ``model``, ``images`` and ``failed``.

    Raises:
        FileExistsError: the folder holds something.
        OSError: it cannot be written.
    """
    images: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    figures: list[str] = []
    with whole_folder(folder) as place:
        for file, answer in answers:
            if isinstance(answer, str):
                failed.append({"file": str(file), "reason": answer})
                continue
            shown = answer.top(TOP) if findings is None else [*findings]
            drawn = picture(answer, shown, notice(described))
            name = _free_name(file.stem, {image["picture"] for image in images})
            write_atomic(place / name, partial(drawn.save, format="png"))
            images.append(_entry(answer, shown, name))
            figures.append(_figure(images[-1], drawn))
        made = {
            "schema": 1,
            "notice": notice(described),
            "cxrlib": __version__,
            "model": described.about,
            "images": images,
            "failed": failed,
        }
        write_json(place / "predictions.json", made)
        page = html(made, figures)
        write_atomic(place / "report.html", lambda out: out.write(page.encode()))
    return made


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that gets its name in the end, or leaves nothing behind.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be written.
    """
    refuse_folder(folder)
    place = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        place.mkdir(parents=True)
        yield place
        if folder.exists():
            folder.rmdir()
        place.rename(folder)
    except OSError as error:
        if error.filename is None:  # it names its file already
            raise
        raise explain_os_error(error, folder, "--out") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def refuse_folder(folder: Path) -> None:
    """Raise FileExistsError unless the folder is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; give a new one, --out")


def _free_name(stem: str, taken: set[str]) -> str:
    """A name of a picture that any file system takes, and that no other has."""
    stem = re.sub(r"[^\w-]+", "_", stem)[:60]
    names = (f"pictures/{stem}{'' if n == 1 else f'-{n}'}.png" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _entry(reading: Reading, shown: Sequence[int], name: str) -> dict[str, Any]:
    """What the document says of an image; boxes only of the findings that are shown."""
    findings: dict[str, dict[str, Any]] = {}
    for finding, label in enumerate(FINDINGS):
        peak = reading.peak(finding)
        findings[label] = {
            "score": round(float(reading.scores[finding]), 4),
            "map_maximum": round(float(reading.maps[finding].max()), 4),
            "peak": None if peak is None else [round(at, 1) for at in peak],
        }
    for finding in shown:
        findings[FINDINGS[finding]]["boxes"] = reading.boxes(finding)
    return {
        "file": str(reading.file),
        "width": reading.width,
        "height": reading.height,
        "picture": name,
        "shown": [FINDINGS[finding] for finding in shown],
        "findings": findings,
    }


def _figure(image: Mapping[str, Any], drawn: Image.Image) -> str:
    """The picture within the page, as a JPEG: a page of many is sent around."""
    data = io.BytesIO()
    drawn.save(data, "jpeg", quality=88)
    names = ", ".join(map(spoken, image["shown"]))
    words = f"Radiograph {image['file']}, and the same under the maps of {names}"
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    head = ["finding", "score", "map maximum", "x, y of it (px)"]
    rows = [
        [
            spoken(name),
            f"{of['score']:.2f}",
            f"{of['map_maximum']:.2f}",
            "–" if of["peak"] is None else ", ".join(f"{at:.0f}" for at in of["peak"]),
        ]
        for name, of in sorted(image["findings"].items(), key=lambda item: -item[1]["score"])
    ]
    return (
        f"<h2>{escape(image['file'])}</h2>"
        f'<figure><img class="strip" alt="{escape(words)}" src="{source}"></figure>'
        f"<details><summary>All findings; {image['width']} × {image['height']} px</summary>"
        f"{table(head, rows)}</details>"
    )


def html(made: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The page: it holds its style and its pictures, runs no script and loads nothing.

    Args:
        made: what ``predictions.json`` holds.
        figures: HTML of each image.
    """
    about, images, failed = made["model"], made["images"], made["failed"]
    method = SHIPPED.get(about["method"], about["method"])
    title = f"{len(images):,} {'image' if len(images) == 1 else 'images'} read by {method}"
    facts = {
        "model": f"{method}, run {about['run']}, commit {about['commit']}",
        "trained on": f"{about['images']['train']:,} images of {about['dataset']}, "
        f"{about['image_size']} px, seed {about['seed']}",
        "boxes": f"predictions.json: from {SHARE:.0%} of a map's range up",
        "cxrlib": made["cxrlib"],
    }
    entries = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="notice"><b>{escape(made["notice"])}</b></p>',
        f"<dl>{entries}</dl>",
        f"<p>{_LOOK}</p>",
    ]
    if failed:
        rows = [[entry["file"], entry["reason"]] for entry in failed]
        body += ["<h2>Files that could not be read</h2>", table(["file", "why"], rows, "words")]
    return document(title, [*body, *figures])
