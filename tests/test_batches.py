"""Batches: each photograph once in an epoch, the same ones however many threads prepare them."""

import errno
import os
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fixtures import VARIANTS, params, shard

from catdog.base import parallel, paths
from catdog.base.errors import UserError
from catdog.photographs import augmentation
from catdog.training.loop import batches

PHOTOGRAPHS = 12


@given(
    photographs=st.integers(1, 150),
    variants=st.integers(0, 4),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(1, 10_000),
)
@settings(max_examples=50, deadline=None)
def test_an_epoch_has_each_photograph_once_under_its_label(photographs, variants, batch_size, seed, epoch):
    # The number of its photograph stands in for a row: originals first, then the variants of each.
    number = np.concatenate([np.arange(photographs), np.repeat(np.arange(photographs), variants)])
    labels = number % 3 == 0
    epochs = [
        batches.FeatureBatches(number[:, None], labels, variants=variants, batch_size=batch_size, seed=seed, epoch=e)
        for e in (epoch, epoch, epoch + 1)
    ]
    given_ = [[b[i] for i in range(len(b))] for b in epochs]
    rows, answers = (np.concatenate(part).ravel() for part in zip(*given_[0], strict=True))
    assert sorted(rows) == list(range(photographs))
    assert ((rows % 3 == 0) == answers).all()
    assert len(epochs[0]) == batches.steps(photographs, batch_size)
    assert all(len(x) == batch_size for x, _ in given_[0][:-1])
    assert [x.tolist() for x, _ in given_[0]] == [x.tolist() for x, _ in given_[1]]
    if photographs >= 20:  # of so many, two orders are never the same by chance
        assert rows.tolist() != np.concatenate([x for x, _ in given_[2]]).ravel().tolist()


@pytest.fixture
def pixels(tmp_path, monkeypatch) -> batches.Pixels:
    """Photographs of grey 0, 20, 40, ...; their variants are lighter by 5 and 10."""
    monkeypatch.chdir(tmp_path)
    originals = shard(Path("train.arrow"), [20 * i for i in range(PHOTOGRAPHS)])
    lighter = [20 * i + 5 * (k + 1) for i in range(PHOTOGRAPHS) for k in range(VARIANTS)]
    return batches.Pixels(
        [originals, shard(Path("augmented.arrow"), lighter, per_photograph=VARIANTS)], size=20, what=""
    )


def epoch_of(pixels: batches.Pixels, *, epoch: int = 1, batch_size: int = 5, **policy) -> batches.VariedPixels:
    return batches.VariedPixels(
        pixels,
        size=16,
        policy=params(augment=policy).augment,
        variants=VARIANTS,
        batch_size=batch_size,
        seed=7,
        epoch=epoch,
    )


def test_photographs_and_their_variants_come_under_their_own_label(pixels):
    met = Counter()
    for epoch in range(1, 9):
        given_ = epoch_of(pixels, epoch=epoch)
        images, labels = (np.concatenate(part) for part in zip(*(given_[i] for i in range(len(given_))), strict=True))
        assert images.shape == (PHOTOGRAPHS, 16, 16, 3)
        assert images.dtype == np.uint8
        grey = images.mean(axis=(1, 2, 3)).round().astype(int)
        photograph, variant = grey // 20, grey % 20 // 5
        assert sorted(photograph) == list(range(PHOTOGRAPHS))
        assert (labels[:, 0] == photograph % 2).all()
        met.update(variant.tolist())
    assert set(met) == {0, 1, 2}  # the photograph itself, and each of its variants


def test_the_network_sees_the_same_batches_whatever_the_number_of_threads(pixels, monkeypatch):
    class Recorder(keras.Model):
        def train_step(self, data):
            seen.append(np.asarray(data[0]))
            return {"loss": 0.0}

    epochs = []
    for threads, epoch in ((1, 1), (4, 1), (4, 2)):
        monkeypatch.setattr(parallel, "cores", lambda threads=threads: threads)
        seen: list[np.ndarray] = []
        recorder = Recorder()
        recorder.compile(loss="mse", run_eagerly=True)
        policy = {name: {"probability": 0.5} for name in ("brightness", "shift", "erasing")}
        recorder.fit(epoch_of(pixels, epoch=epoch, batch_size=2, **policy), shuffle=False, verbose=0)
        epochs.append(np.stack(seen))
    one, four, other = epochs
    np.testing.assert_array_equal(one, four)
    assert (one != other).any()


def test_training_has_the_cheap_part_of_the_policy_and_no_more(pixels):
    pixels.array[:] = np.random.default_rng(0).integers(0, 256, pixels.array.shape)
    plain = epoch_of(pixels)[0][0]
    for name in augmentation.EVERY_EPOCH + augmentation.WRITTEN_ONLY:
        varied = epoch_of(pixels, **{name: {"probability": 1.0}})[0][0]
        assert (varied != plain).any() == (name in augmentation.EVERY_EPOCH), name


def test_photographs_are_mixed_with_others_of_their_batch_and_so_are_labels(pixels):
    images, labels = epoch_of(pixels, batch_size=PHOTOGRAPHS, cutmix={"probability": 1.0})[0]
    plain, before = epoch_of(pixels, batch_size=PHOTOGRAPHS)[0]
    shares = (images != plain).any(axis=3).mean(axis=(1, 2))
    assert (shares > 0).all()
    between = before != np.roll(before, -1, axis=0)
    np.testing.assert_allclose(np.abs(labels - before)[:, 0], np.where(between[:, 0], shares, 0), atol=1e-6)


def test_decoded_pixels_leave_nothing_in_the_folder(pixels):
    assert list(paths.CHECKPOINTS.iterdir()) == []
    assert pixels.array.shape == (PHOTOGRAPHS * (1 + VARIANTS), 20, 20, 3)
    assert pixels.array[1].mean() == 20


def test_a_disk_without_room_is_told_before_it_is_filled(pixels, monkeypatch):
    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"^decoding at 80 px needs 0\.0 MB of room; .* MB \(No space left on device\)"):
        batches.Pixels([shard(Path("a.arrow"), [1])], size=80, what="decoding at 80 px")
    assert list(paths.CHECKPOINTS.iterdir()) == []


def test_validation_comes_whole_and_in_order():
    rows, labels = np.arange(10)[:, None], np.arange(10) % 2
    given_ = batches.InOrder(rows, labels, batch_size=4)
    assert [x.ravel().tolist() for x, _ in (given_[i] for i in range(len(given_)))] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert np.concatenate([given_[i][1] for i in range(3)]).ravel().tolist() == labels.tolist()
