import errno
import multiprocessing
import pickle
import shutil
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrlib.datasets import cache, images
from cxrlib.datasets.base import BOX_COLUMNS, CXRDataset, Split, scaled
from cxrlib.datasets.cache import Entry, Store, cached, stored
from cxrlib.datasets.images import Files, Reader, find_images, verify
from cxrlib.files import cache_dir
from cxrlib.inference import loader

SIZE = 32


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CXRLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counting:
    """A reader that notes what it decodes, in a file, so that several processes can share it."""

    def __init__(self, read, log, pause=0.0):
        self.read, self.log, self.pause = read, log, pause

    def __call__(self, image_id):
        time.sleep(self.pause)
        with open(self.log, "a") as file:
            file.write(f"{image_id}\n")
        return self.read(image_id)

    def decoded(self):
        """What was decoded since the last call."""
        done = sorted(self.log.read_text().split()) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return done


def draw(path, seed):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (40 + seed % 30,) * 2, np.uint8)).save(path)


def write_images(folder, count):
    (folder / "images").mkdir(parents=True)
    for index in range(count):
        draw(folder / "images" / f"i{index:03}.{'png' if index % 3 else 'jpg'}", index)
    return folder


def dataset_of(folder, size=SIZE, pause=0.0):
    paths = find_images(folder)
    ids = np.array(sorted(paths))
    labels = np.arange(len(ids) * 14).reshape(-1, 14) % 2
    read = Counting(Reader(paths, size, "mend it"), folder / "log", pause)
    return CXRDataset("toy", ids, ids, labels, pd.DataFrame(columns=BOX_COLUMNS), size, read)


def files_of(dataset):
    return verify(dataset.image_ids, dataset.read_pixels.read.paths, "mend it")


def keep(dataset, folder):
    return dataset.reading(stored(dataset, folder, files_of(dataset)))


def direct(dataset):
    return np.stack([dataset.read_pixels.read(name) for name in dataset.image_ids.tolist()])


def content(dataset):
    return dataset.read_pixels.batch(dataset.image_ids)


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "data", 24)


@pytest.fixture
def data(folder):
    return dataset_of(folder)


def only_store(place):
    (found,) = place.iterdir()
    return found


def test_cached_samples_and_batches_are_the_direct_ones_bit_for_bit(folder):
    rng = np.random.default_rng(0)
    for case in range(40):
        data = dataset_of(folder, int(rng.choice([1, 17, 32, 64, 101])))
        chosen = rng.permutation(24)[: rng.integers(1, 25)]
        part = keep(data.subset(chosen), folder).subset(rng.permutation(len(chosen)))
        plain = part.reading(data.read_pixels)
        order = rng.integers(0, len(part), 30)
        for index in order[:3].tolist():
            one, other = part[index], plain[index]
            assert torch.equal(one.image, other.image) and one.image_id == other.image_id, case
        batch, expected = part.__getitems__(order), plain.__getitems__(order.tolist())
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)
        assert torch.equal(scaled(batch.images[0]), part[int(order[0])].image)


def test_a_split_reads_from_one_store(data, folder, place):
    split = Split(*(data.subset(np.arange(at, at + 8)) for at in (0, 8, 16)), data_hash="")
    kept = cached(split, folder, files_of(data))
    for part in ("train", "val", "test"):
        assert (content(getattr(kept, part)) == direct(getattr(split, part))).all()
    assert data.read_pixels.decoded() == data.image_ids.tolist()
    array = np.load(only_store(place) / "pixels.npy")
    assert array.shape == (24, SIZE, SIZE) and array.dtype == np.uint8
    assert not kept.train[0].image.isnan().any()


def test_nothing_is_decoded_twice(data, folder, place):
    few = data.subset(np.array([5, 3]))
    assert (content(keep(few, folder)) == direct(few)).all()
    assert data.read_pixels.decoded() == ["i003", "i005"]
    assert (content(keep(data, folder)) == direct(data)).all()
    assert len(data.read_pixels.decoded()) == 22
    assert (content(keep(few, folder)) == direct(few)).all()
    assert data.read_pixels.decoded() == []
    assert (only_store(place) / "pixels.npy").stat().st_size == 128 + 24 * SIZE**2


def test_sizes_folders_and_datasets_have_their_own_stores(folder, tmp_path, place):
    other = write_images(tmp_path / "other", 3)
    for source, size in ((folder, 16), (folder, 32), (other, 16)):
        keep(dataset_of(source, size), source)
    named = dataset_of(folder, 16)
    named.name = "other"
    keep(named, folder)
    assert len([*place.iterdir()]) == 4


def test_the_loader_reads_whole_batches_in_this_and_in_other_processes(data, folder):
    kept = keep(data, folder)
    for workers in (0, 2):
        batches = [*loader(kept, 5, workers)]
        assert [len(batch.images) for batch in batches] == [5, 5, 5, 5, 4]
        found = torch.cat([batch.images for batch in batches])
        assert (found[:, 0].numpy() == direct(data)).all()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        batch = pool.submit(kept.__getitems__, [7, 2]).result()
    assert torch.equal(batch.images, kept.__getitems__([7, 2]).images)


def test_the_pixels_are_not_sent_to_other_processes(data, folder):
    kept = keep(data, folder)
    assert kept[0].image.shape == (1, SIZE, SIZE)
    assert len(pickle.dumps(kept.read_pixels)) < SIZE**2 * 2
    assert (content(pickle.loads(pickle.dumps(kept))) == direct(data)).all()


@pytest.mark.parametrize("name", ["i0031", "i00", "", "z", "a"])
def test_an_image_that_is_not_in_the_cache_is_named(data, folder, name):
    with pytest.raises(KeyError, match=rf"pixels.npy has no row of \['{name}'\]"):
        keep(data, folder).read_pixels(name)


def touch(folder):
    path = folder / "images/i004.png"
    path.touch()
    return ["i004"]


def replace_a_file(folder):
    draw(folder / "images/i004.png", 99)
    return ["i004"]


def replace_all(folder):
    for index, path in enumerate(sorted((folder / "images").iterdir())):
        draw(path, 100 + index)
    return [f"i{index:03}" for index in range(24)]


def change_the_kind(folder):
    (folder / "images/i004.png").unlink()
    draw(folder / "images/i004.jpg", 5)
    return ["i004"]


def remove(folder):
    (folder / "images/i004.png").unlink()
    return []


def add(folder):
    for name in ("a", "i0041", "z"):
        draw(folder / "images" / f"{name}.png", 60)
    return ["a", "i0041", "z"]


@pytest.mark.parametrize(
    "change", [touch, replace_a_file, replace_all, change_the_kind, remove, add]
)
def test_a_changed_source_is_decoded_again_and_nothing_else_is(data, folder, place, change):
    keep(data, folder)
    data.read_pixels.decoded()
    time.sleep(0.02)  # as coarse as the times of some file systems
    again = change(folder)
    after = dataset_of(folder)
    kept = keep(after, folder)
    assert after.read_pixels.decoded() == again
    assert (content(kept) == direct(after)).all()
    assert len(np.load(only_store(place) / "pixels.npy")) == max(24, len(after))
    keep(after, folder)
    assert after.read_pixels.decoded() == []


def flip_a_byte(store):
    with open(store / "pixels.npy", "r+b") as file:
        file.seek(128 + 7 * SIZE**2 + 5)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    return ["i007"]


def flip_a_byte_through_a_map(store):
    pixels = np.load(store / "pixels.npy", mmap_mode="r+")
    pixels[7, 3, 3] ^= 1
    pixels.flush()
    return ["i007"]


def cut_the_pixels(store):
    with open(store / "pixels.npy", "r+b") as file:
        file.truncate(128 + 20 * SIZE**2 + 9)
    return ["i020", "i021", "i022", "i023"]


def clear_the_header(store):
    with open(store / "pixels.npy", "r+b") as file:
        file.write(bytes(128))
    return []


def lose_the_pixels(store):
    (store / "pixels.npy").unlink()
    return [f"i{index:03}" for index in range(24)]


def lose_the_index(store):
    (store / "index.jsonl").unlink()
    return [f"i{index:03}" for index in range(24)]


def spoil_the_index(store):
    path = store / "index.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"i002", b"i003")
    lines[5] = b"\xff\x00"
    lines[9] = lines[9][:15]
    path.write_bytes(b"\n".join(lines))
    return ["i002", "i005", "i009"]


def cut_the_index(store):
    path = store / "index.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    return ["i023"]


def spoil_the_seal(store):
    (store / "seal.json").write_bytes(b"\xff{")
    return []


def lose_the_seal(store):
    (store / "seal.json").unlink()
    return []


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        flip_a_byte_through_a_map,
        cut_the_pixels,
        clear_the_header,
        lose_the_pixels,
        lose_the_index,
        spoil_the_index,
        cut_the_index,
        spoil_the_seal,
        lose_the_seal,
    ],
)
def test_a_damaged_cache_is_mended_where_it_is_damaged(data, folder, place, damage):
    keep(data, folder)
    store = only_store(place)
    whole = (store / "pixels.npy").read_bytes()
    data.read_pixels.decoded()
    time.sleep(0.02)
    again = damage(store)
    assert (content(keep(data, folder)) == direct(data)).all()
    assert data.read_pixels.decoded() == again
    assert (store / "pixels.npy").read_bytes() == whole


def test_a_copied_cache_is_checked_not_decoded(data, folder, place):
    keep(data, folder)
    data.read_pixels.decoded()
    store = only_store(place)
    shutil.copy(store / "pixels.npy", store / "copy")
    (store / "copy").replace(store / "pixels.npy")
    assert (content(keep(data, folder)) == direct(data)).all()
    assert data.read_pixels.decoded() == []


def test_a_new_version_makes_all_rows_anew(data, folder, place, monkeypatch):
    keep(data, folder)
    data.read_pixels.decoded()
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    keep(data, folder)
    assert data.read_pixels.decoded() == data.image_ids.tolist()
    assert len(np.load(only_store(place) / "pixels.npy")) == 24


def run(target, *arguments):
    """A process of its own, which starts at once as it need not import anything."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def test_twenty_kills_at_any_moment_change_no_byte(tmp_path, place):
    folder = write_images(tmp_path / "data", 200)
    data = dataset_of(folder, pause=0.005)
    kept = keep(data, folder)
    expected = bytes_of(place)
    assert (content(kept) == direct(data)).all()
    shutil.rmtree(place)
    rng, kills = np.random.default_rng(0), 0
    while kills < 20:
        before = stored_count(place)
        process = run(keep, data, folder)
        process.join(rng.uniform(0.02, 0.4))
        process.kill()
        process.join()
        assert stored_count(place) >= before, "what was stored is lost"
        if process.exitcode == 0:
            assert bytes_of(place) == expected
            shutil.rmtree(place)
        else:
            assert process.exitcode == -signal.SIGKILL
            kills += stored_count(place) > before  # kills before the first image do not count
    keep(data, folder)
    assert bytes_of(place) == expected


def bytes_of(place):
    """What a store says of its images: all but the seal, which holds a time."""
    return [(only_store(place) / name).read_bytes() for name in ("pixels.npy", "index.jsonl")]


def stored_count(place):
    """How many images are in the index."""
    return sum(path.read_bytes().count(b"\n") for path in place.glob("*/index.jsonl"))


def test_of_two_processes_one_decodes_and_the_other_waits(folder, capfd):
    data = dataset_of(folder, pause=0.02)
    processes = [run(keep, data, folder) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert data.read_pixels.decoded() == data.image_ids.tolist()
    assert "waiting for another process that fills" in capfd.readouterr().err
    assert (content(keep(data, folder)) == direct(data)).all()
    assert data.read_pixels.decoded() == []


def test_a_disk_that_is_too_small_is_refused_before_decoding(folder, monkeypatch):
    data = dataset_of(folder, 1000)
    usage = shutil.disk_usage("/")._replace(free=24 * 1000**2 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    message = (
        r"caching 24 images of 1000 x 1000 px needs 0\.02 GB in .*toy-1000-.*, where 0\.02 GB "
        r"are free; free some, set CXRLIB_CACHE to a folder on a larger disk, or load with cache=F"
    )
    with pytest.raises(OSError, match=message):
        keep(data, folder)
    assert data.read_pixels.decoded() == []
    keep(data.subset(np.arange(23)), folder)
    assert len(data.read_pixels.decoded()) == 23


def test_a_disk_that_fills_up_leaves_what_was_done(data, folder, place):
    """A real limit on file sizes, as from a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 10 * SIZE**2 + 100, limits[1]))
        with pytest.raises(OSError, match=r"cannot write .*toy-32-.*is full.*free some space"):
            keep(data, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert stored_count(place) == 10
    data.read_pixels.decoded()
    assert (content(keep(data, folder)) == direct(data)).all()
    assert data.read_pixels.decoded() == data.image_ids[10:].tolist()


def test_a_cache_that_cannot_be_written_is_named(data, folder, place, monkeypatch):
    place.write_text("")
    with pytest.raises(OSError, match=r"cannot write .*cache/toy-32-.*; choose another.*_CACHE"):
        keep(data, folder)
    place.unlink()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"toy-32-.*Read-only.*cannot be written: choose another"):
        keep(data, folder)
    assert data.read_pixels.decoded() == []


def test_a_full_cache_is_read_without_writing(data, folder, place, monkeypatch):
    keep(data, folder)
    before = {path: path.stat().st_mtime_ns for path in only_store(place).iterdir()}
    monkeypatch.setattr(Store, "locked", None)
    assert (content(keep(data, folder)) == direct(data)).all()
    assert {path: path.stat().st_mtime_ns for path in only_store(place).iterdir()} == before


def test_an_image_that_cannot_be_decoded_keeps_what_was_done(data, folder, place):
    path = folder / "images/i010.png"
    good = path.read_bytes()
    path.write_bytes(good[:60] + bytes(len(good) - 80) + good[-20:])
    with pytest.raises(OSError, match=r"i010.png cannot be decoded \(.*\); mend it"):
        keep(data, folder)
    assert stored_count(place) == 10
    data.read_pixels.decoded()
    path.write_bytes(good)
    assert (content(keep(data, folder)) == direct(data)).all()
    assert data.read_pixels.decoded() == data.image_ids[10:].tolist()


def test_a_loader_of_the_full_release_starts_at_once_and_needs_little_memory(shared):
    """As many rows as the release has; the file has a hole in place of the pixels."""
    table = pd.read_csv(shared / "nih-metadata" / "Data_Entry_2017_v2020.csv.gz")
    ids = table["Image Index"].str.removesuffix(".png").to_numpy(str)
    count, size = len(ids), 256
    store = Store("nih", size, shared)
    files = Files(ids, np.arange(count), np.arange(count))
    marks = [f"{cache.VERSION}:{at}:{at}" for at in range(count)]
    entries = {name: Entry(at, marks[at], 0) for at, name in enumerate(ids.tolist())}
    store.folder.mkdir(parents=True)
    store.write_index(entries)
    with open(store.pixels, "wb") as file:
        file.truncate(128 + count * size**2)
    store.seal(entries)
    del entries, table
    labels, boxes = np.zeros((count, 14)), pd.DataFrame(columns=BOX_COLUMNS)
    start, before = time.perf_counter(), anonymous_bytes()
    data = CXRDataset("nih", ids, ids, labels, boxes, size, images.Reader({}, size, ""))
    kept = data.reading(stored(data, shared, files))
    order = np.random.default_rng(0).permutation(count).tolist()
    batches = iter(loader(kept, 64, 0, sampler=order))
    assert next(batches).images.shape == (64, 1, size, size)
    assert time.perf_counter() - start < 5
    assert sum(len(next(batches).images) for _ in range(100)) == 6400
    assert anonymous_bytes() - before < 2**30 / 4
    assert cache_dir() in store.folder.parents


def anonymous_bytes():
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(text.split("Anonymous:")[1].split()[0])
