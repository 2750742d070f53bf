import numpy as np
import pytest
from conftest import photograph
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catdog.base import paths
from catdog.photographs import photos, shards
from catdog.pictures import sheets
from catdog.preparation import contact_sheets, fingerprints, inspection
from catdog.preparation.inspection import Finding

CLASSES = ["cat", "dog"]
LOOKS_LIKE = "conflicting labels: looks like "


@pytest.fixture
def spooled(tmp_path):
    """`spooled(findings)`: their pixels in a shard, where they have any."""

    def spool(findings):
        settled = inspection.spool(findings, tmp_path / "spool.arrow")
        assert settled == findings
        return shards.Shard(tmp_path / "spool.arrow")

    return spool


@pytest.fixture
def shown(monkeypatch):
    """The blocks, titles and notes of the sheets that are drawn, and the sheets as well."""
    seen, draw = [], sheets.block_sheet

    def block_sheet(blocks, path, **said):
        seen.append((blocks, said["title"], said["note"]))
        draw(blocks, path, **said)

    monkeypatch.setattr(sheets, "block_sheet", block_sheet)
    return seen


def kept(source, *, colour=(200, 30, 30), label=0, split="train", group="", reason=""):
    image = np.full((30, 40, 3), colour, np.uint8)
    finding = Finding(source, label, id=source, width=400, height=300, format="JPEG", reason=reason)
    finding.jpeg, finding.fingerprint = photos.encode(image), fingerprints.of(image).tobytes()
    finding.group, finding.split = group or ("" if reason else source), split
    return finding


def refused(source, reason, *, label=0):
    return Finding(source, label, "", reason=reason)


def has_colour(path, colour):
    return bool((np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - colour).max(axis=2) < 12).any())


def test_the_sheet_of_a_class_shows_its_training_photographs_and_no_others(spooled, tmp_path, shown):
    findings = [
        kept("zip/Cat/1.jpg", colour=(250, 0, 0)),
        kept("zip/Cat/2.jpg", colour=(0, 250, 0)),
        kept("zip/Cat/3.jpg", colour=(0, 0, 250), split="val"),
        kept("zip/Dog/4.jpg", colour=(250, 250, 0), label=1),
        kept("zip/Cat/5.jpg", colour=(0, 250, 250), split="", reason="duplicate: same bytes as zip/Cat/1.jpg"),
    ]
    path = tmp_path / "cat.png"
    contact_sheets.photographs(findings, spooled(findings), path, label=0, name="cat", seed=7)
    for colour, there in {(250, 0, 0): True, (0, 250, 0): True, (0, 0, 250): False, (0, 250, 250): False}.items():
        assert has_colour(path, colour) == there
    assert not has_colour(path, (250, 250, 0))
    [([block], title, _)] = shown
    assert block.captions == ["Cat/1.jpg\n400 x 300", "Cat/2.jpg\n400 x 300"]
    assert title == "cat: 2 of 2 training photographs"


def test_many_photographs_are_sampled_and_fit_into_a_small_file(spooled, tmp_path, shown):
    findings = [kept(f"Cat/{n:04}.jpg") for n in range(500)]
    for number, finding in enumerate(findings):
        finding.jpeg = photos.encode(photograph(number, (320, 240)))
    pixels = spooled(findings)
    for name in ("one", "again"):
        contact_sheets.photographs(findings, pixels, tmp_path / name, label=0, name="cat", seed=7)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "one").stat().st_size < 400_000
    [([block], title, _), _] = shown
    assert title == "cat: 24 of 500 training photographs"
    numbers = [int(caption[4:8]) for caption in block.captions]
    assert numbers == sorted(numbers)
    assert max(np.diff([0, *numbers, 499])) <= 2 * 500 / 24 + 1, "no stretch is left out"


@given(st.integers(0, 300), st.integers(1, 50), st.integers(0, 2**32))
def test_a_sample_is_spread_evenly(total, count, seed):
    sample = contact_sheets._sample(list(range(total)), count, seed=seed)
    assert len(sample) == len(set(sample)) == min(total, count)
    assert sample == sorted(sample)
    if total > count:
        assert all(k * total // count <= item < (k + 1) * total // count for k, item in enumerate(sample))


def test_every_category_of_refusal_is_shown_with_its_reasons(spooled, tmp_path, shown):
    findings = [refused(f"zip/Cat/{n}.jpg", f"category {n}: detail {n}") for n in range(40)]
    findings += [refused(f"zip/Dog/{n}.jpg", "empty", label=1) for n in range(1000)]
    findings += [kept("zip/Cat/copy.jpg", colour=(0, 250, 0), reason="duplicate: same bytes as zip/Cat/a.jpg")]
    findings += [kept("zip/Cat/a.jpg", colour=(250, 0, 0))]
    path = tmp_path / "refused.png"
    contact_sheets.refused(findings, spooled(findings), path)
    [(blocks, title, _)] = shown
    assert title == "Refused: 1,041 of 1,042 files"
    by_heading = {block.heading: block for block in blocks}
    assert len(by_heading) == 42
    assert by_heading["empty\n1,000 files, 1 shown"].pictures == ["empty"]
    assert by_heading["category 7\n1 file"].pictures == ["category 7: detail 7"]
    assert by_heading["category 7\n1 file"].captions == ["Cat/7.jpg\n"]
    assert by_heading["duplicate\n1 file"].captions == ["Cat/copy.jpg\nsame bytes as Cat/a.jpg"]
    assert has_colour(path, (0, 250, 0))
    assert not has_colour(path, (250, 0, 0))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40))
def test_as_many_refused_are_shown_as_there_is_room_for(sizes):
    each = contact_sheets._each(sizes)
    assert each >= 1
    assert each == 1 or sum(min(size, each) for size in sizes) <= 30
    assert each == 6 or sum(min(size, each + 1) for size in sizes) > 30


def test_near_duplicates_of_both_classes_come_first(spooled, tmp_path, shown):
    findings = [
        kept("Cat/1.jpg", group="g1"),
        kept("Cat/2.jpg", group="g1", colour=(0, 250, 0)),
        kept("Cat/alone.jpg", colour=(0, 0, 250)),
        kept("Cat/3.jpg", group="g2", reason=LOOKS_LIKE + "Dog/3.jpg (dog)", split=""),
        kept("Cat/4.jpg", group="g2", reason=LOOKS_LIKE + "Dog/3.jpg (dog)", split=""),
        kept("Dog/3.jpg", group="g2", label=1, reason=LOOKS_LIKE + "Cat/3.jpg (cat)", split=""),
    ]
    path = tmp_path / "near.png"
    contact_sheets.near_duplicates(findings, spooled(findings), path, classes=CLASSES, seed=7)
    [([both, cats], title, _)] = shown
    assert title == "Near duplicates: 2 groups"
    assert both.heading == "cat and dog\n3 photographs"
    aside = "set aside\n400 x 300"
    assert both.captions == [f"Cat/3.jpg\ncat, {aside}", f"Dog/3.jpg\ndog, {aside}", f"Cat/4.jpg\ncat, {aside}"]
    assert cats.heading == "cat\n2 photographs"
    assert cats.captions == ["Cat/1.jpg\ncat, train\n400 x 300", "Cat/2.jpg\ncat, train\n400 x 300"]
    assert has_colour(path, (0, 250, 0))
    assert not has_colour(path, (0, 0, 250))


def test_many_near_duplicates_are_a_sample_with_all_of_both_classes(spooled, tmp_path, shown):
    findings = [kept(f"Cat/{n}-{k}.jpg", group=f"g{n}") for n in range(100) for k in range(2 + 5 * (n == 50))]
    findings += [
        kept(f"{name}/{n}.jpg", label=label, group=f"h{n}") for n in range(5) for label, name in enumerate("CD")
    ]
    pixels = spooled(findings)
    contact_sheets.near_duplicates(findings, pixels, tmp_path / "near.png", classes=CLASSES, seed=7)
    [(blocks, title, _)] = shown
    assert title == f"Near duplicates: 105 groups, {len(blocks)} shown"
    assert [block.heading.startswith("cat and dog\n") for block in blocks[:6]] == [True] * 5 + [False]
    assert 28 <= sum(len(block.pictures) for block in blocks) <= 30
    numbers = [int(block.captions[0].split("/")[1].split("-")[0]) for block in blocks[5:]]
    assert numbers == sorted(numbers)
    assert numbers[-1] > 50, "not the first ones alone"


def test_nothing_to_show_is_said(spooled, tmp_path, shown, monkeypatch):
    monkeypatch.chdir(tmp_path)
    findings = [kept("Cat/1.jpg"), kept("Dog/1.jpg", label=1)]
    spooled(findings)
    contact_sheets.draw(findings, tmp_path / "spool.arrow", classes=CLASSES, seed=7, note="drawings")
    assert [title for _, title, _ in shown] == [
        "cat: 1 of 1 training photographs",
        "dog: 1 of 1 training photographs",
        "Refused: 0 of 2 files",
        "Near duplicates: 0 groups",
    ]
    assert {note for *_, note in shown} == {"drawings"}
    for path in (*paths.PHOTOGRAPHS, paths.REFUSED, paths.NEAR_DUPLICATES):
        assert has_colour(path, (180, 35, 24)), f"{path} has its note in red"


def test_a_block_has_a_caption_for_each_picture(tmp_path):
    with pytest.raises(ValueError, match="1 images, 2 captions"):
        sheets.block_sheet([sheets.Block(["empty"], ["a", "b"])], tmp_path / "x.png", title="t")


def test_blocks_stand_side_by_side_while_there_is_room(tmp_path):
    # Two pictures in each block, four columns: two blocks, then one below.
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    blocks = [sheets.Block([np.full((50, 50, 3), c, np.uint8)] * 2, ["a", "b"], "heading") for c in colours]
    sheets.block_sheet(blocks, tmp_path / "x.png", title="t", columns=4, cell=50)
    sheet = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    tops, lefts = np.transpose([np.argwhere((sheet == colour).all(axis=2)).min(axis=0) for colour in colours])
    assert tops[0] == tops[1] < tops[2]
    assert lefts[0] == lefts[2] < lefts[1]


def test_a_long_text_is_wrapped_and_never_leaves_its_cell():
    font = sheets._font(12)
    lines = sheets._wrapped("the limit is 64 megapixels averyveryverylongwordindeedwithoutanyspaces end", font, 100)
    assert len(lines) > 2
    assert all(font.getlength(line) <= 100 for line in lines)
    assert lines[-1] == "end"
    assert sheets._wrapped("", font, 100) == []
