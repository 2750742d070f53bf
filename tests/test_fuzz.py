"""No bytes whatever crash prepare, or are missing from its manifest."""

import hashlib
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, photograph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_photos import FILES, MAGIC, saved
from test_prepare import GOOD, project, run

from catdog.photographs import photos, shards
from catdog.preparation import archives, inspection, manifest

CASES = 2000
ORIGINALS = ROOT.parent / "shared/data/cats-and-dogs-originals-600.zip"
SETTINGS = inspection.Settings(image_size=299, min_side=16, max_megapixels=4)


def photographs(count: int) -> list[bytes]:
    """JPEGs from cameras if the collection is at hand, else made up, of all kinds."""
    if ORIGINALS.exists():
        with zipfile.ZipFile(ORIGINALS) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
            return [archive.read(name) for name in names[:: len(names) // count][:count]]
    options: list[dict] = [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"restart_marker_blocks": 4},
        {"optimize": True},
    ]
    pictures = [photograph(seed, (320 + 8 * seed, 240)) for seed in range(count)]
    noise = np.random.default_rng(0).integers(-30, 31, (240, 320 + 8 * count, 3))
    noisy = [np.clip(p + noise[:, : p.shape[1]], 0, 255).astype(np.uint8) for p in pictures]
    return [saved(p, "JPEG", quality=85, **options[i % len(options)]) for i, p in enumerate(noisy)]


def harmed(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with one to eight bytes changed, half of them among its headers, and now and then its end cut off."""
    changed = bytearray(data)
    headers = data.rindex(b"\xff\xda") + 14
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(headers if rng.random() < 0.5 else len(changed))] = rng.integers(256)
    if rng.random() < 0.1:
        del changed[rng.integers(len(changed)) :]
    return bytes(changed)


def test_bytes_flipped_in_photographs_crash_nothing_and_lose_no_file(tmp_path, capfd):
    rng = np.random.default_rng(11)
    whole = photographs(40)
    cases = [harmed(whole[case % len(whole)], rng) for case in range(CASES)]
    with zipfile.ZipFile(tmp_path / "cases.zip", "w") as archive:
        for case, data in enumerate(cases):
            archive.writestr(f"{('Cat', 'Dog')[case % 2]}/{case:04}.jpg", data)
    files = [replace(f, label=0) for f in archives.members(tmp_path / "cases.zip", "zip")]
    findings = list(inspection.inspect(files, SETTINGS))
    assert capfd.readouterr().err == ""  # of all that decoders print, nothing reaches the terminal

    assert [finding.source for finding in findings] == [file.source for file in files]
    assert [finding.id for finding in findings] == [hashlib.sha256(data).hexdigest() for data in cases]
    assert all((finding.jpeg is None) == bool(finding.reason) for finding in findings)
    reasons = {finding.reason for finding in findings if finding.reason}
    assert "damaged: crashes the decoder" not in reasons
    assert all(reason.isprintable() for reason in reasons)
    assert {"truncated", "damaged: premature end of data segment"} < reasons
    kept = [finding for finding in findings if not finding.reason]
    assert 0.2 * CASES < len(kept) < 0.9 * CASES
    assert all(min(photos.decode(finding.jpeg).shape[:2]) <= SETTINGS.image_size for finding in kept[::10])


anything = st.one_of(
    st.binary(),
    st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=200)),
    st.builds(lambda name, end: FILES[name][0][:end], st.sampled_from(list(FILES)), st.integers(0, 3000)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(anything, max_size=6))
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of corrupt data
def test_every_file_has_its_row_in_the_manifest(contents, tmp_path):
    files = []
    for index, data in enumerate(contents):
        (tmp_path / str(index)).write_bytes(data)
        files.append(archives.File(f"cat/{index}", index % 2, None, str(tmp_path / str(index))))
    findings = inspection.spool((inspection.inspect_file(f, SETTINGS) for f in files), tmp_path / "spool.arrow")
    table = manifest.table(findings, classes=["cat", "dog"])
    assert list(table["source"]) == [f.source for f in files]
    assert list(table["id"]) == [hashlib.sha256(data).hexdigest() for data in contents]
    kept = [finding.spooled for finding in findings if not finding.reason]
    assert kept == list(range(len(kept)))
    assert len(shards.Shard(tmp_path / "spool.arrow")) == len(kept)


def test_prepare_survives_whatever_it_is_given_and_lists_it(tmp_path):
    rng = np.random.default_rng(3)
    names = list(FILES)
    odd = {f"Cat/noise-{i}.jpg": rng.bytes(rng.integers(3000)) for i in range(40)}
    odd |= {f"Dog/begun-{i}.png": MAGIC[i % len(MAGIC)] + rng.bytes(rng.integers(1000)) for i in range(60)}
    for i in range(200):
        data = bytearray(FILES[names[i % len(names)]][0])
        for at in rng.integers(len(data), size=rng.integers(1, 20)):
            data[at] = rng.integers(256)
        odd[f"Cat/harmed-{i}"] = bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
    folder = project(tmp_path, GOOD | odd)
    done = run("prepare", folder)
    assert done.returncode == 0, done.stderr
    assert not any(word in done.stderr for word in ("JPEG", "Warning", "Traceback", "libpng", "TIFF")), done.stderr
    table = pd.read_csv(folder / "data/prepared/manifest.csv", keep_default_na=False, dtype=str)
    assert list(table["source"]) == sorted(GOOD | odd)
    assert ((table["reason"] == "") == table["split"].isin(["train", "val", "test"])).all()
    assert set(table.loc[table["reason"] == "", "source"]) >= set(GOOD)
