"""The real stages prepare and augment, in a folder of their own."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, jpeg, photograph

from catdog.photographs import photos, shards
from catdog.preparation.splits import split_of

SPLITS = ("train", "val", "test")
OUTPUTS = [f"data/prepared/{name}.arrow" for name in (*SPLITS, "neither")]
OUTPUTS += ["data/prepared/manifest.csv", "metrics/data.json"]
PICTURES = ("sizes", "photographs_0", "photographs_1", "refused", "near_duplicates")
OUTPUTS += [f"plots/{name}.png" for name in PICTURES]
GOOD = {
    f"{folder}/{seed}.jpg": jpeg(seed)
    for folder, first in (("Cat", 0), ("Dog", 40))
    for seed in range(first, first + 40)
}
KEPT_TOO = {
    "Cat/misnamed.jpg": cv2.imencode(".png", photograph(100, (640, 480)))[1].tobytes(),
    'Dog/deep/er/the one, "quoted" and ü.JPEG': jpeg(101, (480, 640)),
    "Cat/twin-1.jpg": jpeg(102),
    "Dog/near-1.jpg": jpeg(110),
    "Dog/near-2.jpg": jpeg(110, (128, 96)),
    "Dog/near-3.png": cv2.imencode(".png", photograph(110)[:, ::-1, ::-1])[1].tobytes(),
}
# Files that can't be kept: what the manifest is to say of them.
BAD = {
    "Cat/empty.jpg": (b"", "empty"),
    "Dog/notes.txt": (b"Not a photograph.\n", "not an image"),
    "Dog/cut.jpg": (jpeg(103)[:2000], "truncated"),
    "Cat/tiny.jpg": (jpeg(104, (90, 10)), "too small: 90 x 10 pixels, the limit is 16"),
    "Cat/huge.jpg": (jpeg(105, (1500, 1000)), "too large: 1500 x 1000 pixels, the limit is 1 megapixels"),
    "Dog/grey.png": (cv2.imencode(".png", np.full((50, 50), 128, np.uint8))[1].tobytes(), "a single flat colour"),
    "Cat/twin-2.jpg": (jpeg(102), "duplicate: same bytes as Cat/twin-1.jpg"),
    "Cat/twin-3.jpg": (jpeg(102), "duplicate: same bytes as Cat/twin-1.jpg"),
    "Cat/both.jpg": (jpeg(106), "conflicting labels: same bytes as Dog/both.jpg"),
    "Dog/both.jpg": (jpeg(106), "conflicting labels: same bytes as Cat/both.jpg"),
    "Cat/either.jpg": (jpeg(111), "conflicting labels: looks like Dog/either.jpg (dog)"),
    "Dog/either.jpg": (jpeg(111, (128, 96)), "conflicting labels: looks like Cat/either.jpg (cat)"),
    "Horse/1.jpg": (jpeg(107), "unknown class"),
    "loose.jpg": (jpeg(108), "unknown class"),
}
PASSED_OVER = {"Cat/.hidden.jpg": jpeg(109), ".DS_Store": b"x", "Dog/Thumbs.db": b"x", "README.md": b"# Photographs\n"}


def project(folder: Path, photographs: dict[str, bytes], **prepare) -> Path:
    """A folder to run stages in, with these files in data/raw."""
    knobs = yaml.safe_load((ROOT / "params.yaml").read_text())
    knobs["prepare"] |= {"image_size": 64, "max_megapixels": 1, "val_fraction": 0.25, "test_fraction": 0.25} | prepare
    knobs["augment"] |= {"variants": 2}
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(knobs))
    for name, data in photographs.items():
        path = folder / "data" / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def run(stage: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "src" / f"{stage}.py"]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)


def outputs(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


def made(folder: Path) -> list[str]:
    """All files that stages made."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(("params.yaml", "data/raw/")))


def error(done: subprocess.CompletedProcess) -> str:
    """The one line that a person reads when a stage fails."""
    assert done.returncode == 1
    progress = ("checking photographs: ", "looking for near duplicates: ")
    [line] = [line for line in done.stderr.splitlines() if not line.startswith(progress)]
    assert line.startswith("error: ")
    return line


PLANTED = GOOD | KEPT_TOO | {name: data for name, (data, _) in BAD.items()} | PASSED_OVER


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = project(tmp_path_factory.mktemp("stages") / "project", PLANTED)
    done = run("prepare", folder, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    (folder.parent / "prepare.stderr").write_text(done.stderr)
    assert f"{len(GOOD) + len(KEPT_TOO)} of {len(PLANTED) - len(PASSED_OVER)} files kept" in done.stdout
    assert made(folder) == sorted(OUTPUTS)
    return folder


@pytest.fixture(scope="module")
def manifest(prepared) -> pd.DataFrame:
    return pd.read_csv(prepared / "data/prepared/manifest.csv", keep_default_na=False, dtype=str)


def test_every_file_is_in_the_manifest_with_a_reason(manifest):
    assert list(manifest["source"]) == sorted(GOOD | KEPT_TOO | BAD)
    reasons = dict(zip(manifest["source"], manifest["reason"], strict=True))
    assert {name: reason for name, reason in reasons.items() if reason} == {n: reason for n, (_, reason) in BAD.items()}
    for row in manifest.itertuples():
        assert row.id == hashlib.sha256(PLANTED[row.source]).hexdigest()
        assert row.label == {"Cat": "cat", "Dog": "dog"}.get(row.source.split("/")[0], "")
        assert (row.split in SPLITS) == (not row.reason)
        assert bool(row.group) == (not row.reason or row.reason.startswith("conflicting labels"))
    by_source = manifest.set_index("source")
    misnamed = by_source.loc["Cat/misnamed.jpg"]
    assert (misnamed["format"], misnamed["width"], misnamed["height"]) == ("PNG", "640", "480")


def test_the_shards_hold_what_the_manifest_says(prepared, manifest):
    kept = manifest[manifest["reason"] == ""].set_index("id")
    ids: set[str] = set()
    for split in SPLITS:
        shard = shards.Shard(prepared / f"data/prepared/{split}.arrow")
        assert shard.ids == sorted(shard.ids)
        for index, row in enumerate(map(shard.row, range(len(shard)))):
            listed = kept.loc[row.id]
            assert (row.source, row.group, split) == (listed["source"], listed["group"], listed["split"])
            assert ("cat", "dog")[shard.labels[index]] == listed["label"]
            assert row.image == photos.standardise(PLANTED[row.source], image_size=64).jpeg
            assert min(photos.decode(row.image).shape[:2]) == 64
        assert ids.isdisjoint(shard.ids)
        ids.update(shard.ids)
    assert ids == set(kept.index)


def test_the_counts_add_up(prepared, manifest):
    metrics = json.loads((prepared / "metrics/data.json").read_text())
    assert metrics["files"] == len(manifest) == metrics["kept"] + sum(metrics["reasons"].values())
    assert metrics["reasons"] == Counter(reason.split(":")[0] for _, reason in BAD.values())
    kept = manifest[manifest["reason"] == ""]
    assert metrics["kept"] == len(kept) == sum(sum(split.values()) for split in metrics["counts"].values())
    for split in SPLITS:
        assert metrics["counts"][split] == Counter(kept.loc[kept["split"] == split, "label"])
    source = metrics["source"]
    assert (source["kind"], source["path"], source["files"]) == ("own", "data/raw", len(manifest))
    assert source["size"] == sum(len(PLANTED[name]) for name in manifest["source"])
    assert re.fullmatch("[0-9a-f]{64}", source["sha256"])


def test_near_copies_are_one_group_in_one_split(prepared, manifest):
    by_source = manifest.set_index("source")
    near = by_source.loc[[name for name in KEPT_TOO if "near" in name]]
    assert set(near["group"]) == {near["id"].min()}
    assert near["split"].nunique() == 1
    assert by_source.loc["Cat/either.jpg", "group"] == by_source.loc["Dog/either.jpg", "group"]
    metrics = json.loads((prepared / "metrics/data.json").read_text())["groups"]
    alone = partial(split_of, seed=7, val_fraction=0.25, test_fraction=0.25)
    assert metrics == {
        "kept": len(GOOD) + len(KEPT_TOO) - 2,
        "near_duplicates": 1,
        "photographs_in_them": 3,
        "largest": 3,
        "straddling_if_split_alone": int(len(set(map(alone, near["id"]))) > 1),
        "set_aside": 2,
    }


def test_sizes_are_those_of_the_files(prepared, manifest):
    metrics = json.loads((prepared / "metrics/data.json").read_text())["sizes"]
    for name, sizes in metrics.items():
        measured = manifest[(manifest["label"] == name) & (manifest["width"] != "")]
        assert sizes["photographs"] == len(measured)
        for side in ("width", "height"):
            sides = measured[side].astype(int)
            assert sizes[side] == [sides.min(), sides.median(), sides.max()]
    assert metrics["cat"]["width"][2] == 640


def test_pictures_of_the_data_are_drawn_and_small(prepared):
    for name in PICTURES:
        path = prepared / f"plots/{name}.png"
        assert min(cv2.imread(str(path)).shape[:2]) >= 60
        assert path.stat().st_size < 400_000


@pytest.fixture(scope="module")
def augmented(prepared) -> Path:
    done = run("augment", prepared, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    (prepared.parent / "augment.stderr").write_text(done.stderr)
    return prepared


def test_variants_stand_under_their_photographs_name(augmented):
    train = shards.Shard(augmented / "data/prepared/train.arrow")
    variants = shards.Shard(augmented / "data/augmented/train.arrow")
    assert variants.ids == [i for i in train.ids for _ in range(2)]
    assert list(variants.labels) == [label for label in train.labels for _ in range(2)]
    pictures = {variants.jpeg(index) for index in range(len(variants))} | {train.jpeg(i) for i in range(len(train))}
    assert len(pictures) == 3 * len(train)
    assert cv2.imread(str(augmented / "plots/augmented.png")) is not None


# Runs a stage until so many rows have gone into the shard that is named.
DIES = """
import os, runpy, signal, sys
stage, name, rows = sys.argv[1:]
sys.path.insert(0, os.path.dirname(stage))
from catdog.photographs import shards
write = shards.write

def deadly(path, rows_):
    def until():
        for count, row in enumerate(rows_):
            if name in path.name and count == int(rows):
                os.kill(os.getpid(), signal.SIGKILL)
            yield row
    return write(path, until())

shards.write = deadly
runpy.run_path(stage, run_name="__main__")
"""


def killed(stage: str, folder: Path, name: str, rows: int) -> None:
    command = [sys.executable, "-c", DIES, str(ROOT / "src" / f"{stage}.py"), name, str(rows)]
    assert subprocess.run(command, cwd=folder, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL


def test_killed_and_run_again_it_gives_the_same_bytes(augmented, tmp_path):
    folder = project(tmp_path / "again", PLANTED)
    killed("prepare", folder, "spool", 30)
    assert [name for name in made(folder) if "/.spool." not in name] == []
    killed("prepare", folder, "val", 3)
    assert not (folder / "data/prepared/val.arrow").exists()
    assert run("prepare", folder).returncode == 0
    assert made(folder) == sorted(OUTPUTS)
    assert outputs(folder) == outputs(augmented)
    killed("augment", folder, "train", 10)
    assert not (folder / "data/augmented/train.arrow").exists()
    assert run("augment", folder).returncode == 0
    assert made(folder) == made(augmented)
    for name in ("data/augmented/train.arrow", "plots/augmented.png"):
        assert (folder / name).read_bytes() == (augmented / name).read_bytes()


CATS = {name: data for name, data in GOOD.items() if name.startswith("Cat")}
REFUSALS = {
    "no photographs of a class": (CATS, {}, "data/raw holds no photographs of dog"),
    "none that is usable": (CATS | {"Dog/a.jpg": b"", "Dog/b.jpg": b"x"}, {}, "no usable photographs of dog for train"),
    "too few to split": (CATS | {"Dog/a.jpg": jpeg(50)}, {}, "no usable photographs of dog for "),
    "an empty folder": ({}, {"source": "empty"}, "empty holds no photographs"),
    "no such folder": ({}, {"source": "nowhere"}, "nowhere"),
    "a bad knob": (CATS, {"val_fraction": 0.9}, "prepare.val_fraction should be less than 0.5"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_person_can_cause_is_one_line_and_leaves_nothing(name, tmp_path):
    photographs, knobs, message = REFUSALS[name]
    folder = project(tmp_path, photographs, **knobs)
    (tmp_path / "empty").mkdir()
    assert message in error(run("prepare", folder))
    assert made(folder) == []


def test_augment_before_prepare_is_one_line(tmp_path):
    folder = project(tmp_path, {})
    assert "data/prepared/train.arrow not found: run `dvc repro`" in error(run("augment", folder))
    assert made(folder) == []


@pytest.mark.parametrize("stage", ["prepare", "augment"])
def test_neither_tensorflow_nor_mlflow_is_imported(augmented, stage):
    # Neither by the stage nor by its workers, which inherit the variable that makes Python list its imports.
    lines = (augmented.parent / f"{stage}.stderr").read_text().splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    assert {"catdog", "cv2", "pyarrow"} <= imported
    assert imported.isdisjoint({"tensorflow", "keras", "mlflow", "sklearn", "torch", "jax"})


# Runs prepare, and changes data/raw once everything in it was read.
CHANGES = """
import os, pathlib, runpy, shutil, sys, time
stage, change = sys.argv[1:]
sys.path.insert(0, os.path.dirname(stage))
from catdog.preparation import duplicates
resolve, raw = duplicates.resolve, pathlib.Path("data/raw")

def late(*given, **knobs):
    exec(change)
    return resolve(*given, **knobs)

duplicates.resolve = late
runpy.run_path(stage, run_name="__main__")
"""
WHILE_READING = {
    "one more": ("shutil.copy(raw / 'Cat/1.jpg', raw / 'Cat/more.jpg')", r"Cat/more\.jpg"),
    "some gone": ("[(raw / f'Dog/{i}.jpg').unlink() for i in (50, 51, 52)]", r"Dog/50\.jpg and 2 more"),
    "replaced by one of its size": (
        "data = (raw / 'Cat/2.jpg').read_bytes(); time.sleep(0.02); (raw / 'Cat/2.jpg').write_bytes(data)",
        r"Cat/2\.jpg",
    ),
    "renamed": ("(raw / 'Cat/3.jpg').rename(raw / 'Cat/z.jpg')", r"Cat/3\.jpg and 1 more"),
}


@pytest.mark.parametrize("name", WHILE_READING)
def test_photographs_that_change_while_they_are_read_are_an_error(name, tmp_path):
    change, words = WHILE_READING[name]
    folder = project(tmp_path, GOOD)
    command = [sys.executable, "-c", CHANGES, str(ROOT / "src/prepare.py"), change]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    expected = rf"^error: data/raw changed while it was read \({words}\): run it again when nothing else writes there$"
    assert re.fullmatch(expected, done.stderr.strip().splitlines()[-1])
    assert run("prepare", folder).returncode == 0
