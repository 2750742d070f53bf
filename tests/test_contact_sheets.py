"""What stands on the sheets of kept and refused files, and how a sheet of blocks is laid out."""

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
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


@pytest.fixture
def spooled(tmp_path):
    """`spooled(findings)`: their pixels in a shard, where they have any."""

    def spool(findings):
        assert inspection.spool(findings, tmp_path / "spool.arrow") == findings
        return shards.Shard(tmp_path / "spool.arrow")

    return spool


def kept(source, *, colour=RED, label=0, split="train", group="", reason=""):
    image = np.full((30, 40, 3), colour, np.uint8)
    finding = Finding(source, label, id=source, width=400, height=300, format="JPEG", reason=reason)
    finding.jpeg, finding.fingerprint = photos.encode(image), fingerprints.of(image).tobytes()
    finding.group, finding.split = group or ("" if reason else source), split
    return finding


def has_colour(image, colour):
    return bool((np.abs(image.astype(int) - colour).max(axis=2) < 12).any())


def test_the_sheet_of_a_class_shows_its_training_photographs_and_no_others(spooled):
    findings = [
        kept("zip/Cat/1.jpg", colour=RED),
        kept("zip/Cat/2.jpg", colour=GREEN),
        kept("zip/Cat/3.jpg", colour=BLUE, split="val"),
        kept("zip/Dog/4.jpg", colour=BLUE, label=1),
        kept("zip/Cat/5.jpg", colour=BLUE, split="", reason="duplicate: same bytes as zip/Cat/1.jpg"),
    ]
    title, [block] = contact_sheets.photographs(findings, spooled(findings), label=0, name="cat")
    assert title == "cat: 2 of 2 training photographs"
    assert block.captions == ["Cat/1.jpg\n400 x 300", "Cat/2.jpg\n400 x 300"]
    assert [has_colour(picture, colour) for picture, colour in zip(block.pictures, (RED, GREEN), strict=True)] == [
        True
    ] * 2


def test_of_many_photographs_the_first_by_id_are_shown(spooled):
    findings = [kept(f"Cat/{n:04}.jpg") for n in range(500)]
    title, [block] = contact_sheets.photographs(findings, spooled(findings), label=0, name="cat")
    assert title == "cat: 24 of 500 training photographs"
    first = sorted(findings, key=lambda finding: finding.id)[:24]
    assert [caption.split("\n")[0] for caption in block.captions] == [finding.source for finding in first]


def test_every_category_of_refusal_is_shown_with_its_reasons(spooled):
    findings = [Finding(f"zip/Cat/{n}.jpg", 0, reason=f"category {n}: detail {n}") for n in range(40)]
    findings += [Finding(f"zip/Dog/{n}.jpg", 1, reason="empty") for n in range(1000)]
    findings += [kept("zip/Cat/copy.jpg", colour=GREEN, reason="duplicate: same bytes as zip/Cat/a.jpg")]
    findings += [kept("zip/Cat/a.jpg")]
    title, blocks = contact_sheets.refused(findings, spooled(findings))
    assert title == "Refused: 1,041 of 1,042 files"
    by_heading = {block.heading: block for block in blocks}
    assert len(by_heading) == 42
    assert by_heading["empty\n1,000 files, 1 shown"].pictures == ["empty"]
    assert by_heading["category 7\n1 file"].pictures == ["category 7: detail 7"]
    assert by_heading["category 7\n1 file"].captions == ["Cat/7.jpg\n"]
    assert by_heading["duplicate\n1 file"].captions == ["Cat/copy.jpg\nsame bytes as Cat/a.jpg"]
    assert has_colour(by_heading["duplicate\n1 file"].pictures[0], GREEN)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40))
def test_as_many_refused_are_shown_as_there_is_room_for(sizes):
    most = contact_sheets._most_of_each(sizes)
    assert most >= 1
    assert most == 1 or sum(min(size, most) for size in sizes) <= 30
    assert most == 6 or sum(min(size, most + 1) for size in sizes) > 30


def test_near_duplicates_of_both_classes_come_first(spooled):
    findings = [
        kept("Cat/1.jpg", group="g1"),
        kept("Cat/2.jpg", group="g1", colour=GREEN),
        kept("Cat/alone.jpg"),
        kept("Cat/3.jpg", group="g2", reason=LOOKS_LIKE + "Dog/3.jpg (dog)", split=""),
        kept("Cat/4.jpg", group="g2", reason=LOOKS_LIKE + "Dog/3.jpg (dog)", split=""),
        kept("Dog/3.jpg", group="g2", label=1, reason=LOOKS_LIKE + "Cat/3.jpg (cat)", split=""),
    ]
    title, [both, cats] = contact_sheets.near_duplicates(findings, spooled(findings), classes=CLASSES)
    assert title == "Near duplicates: 2 groups"
    assert both.heading == "cat and dog\n3 photographs"
    aside = "set aside\n400 x 300"
    assert both.captions == [f"Cat/3.jpg\ncat, {aside}", f"Dog/3.jpg\ndog, {aside}", f"Cat/4.jpg\ncat, {aside}"]
    assert cats.heading == "cat\n2 photographs"
    assert cats.captions == ["Cat/1.jpg\ncat, train\n400 x 300", "Cat/2.jpg\ncat, train\n400 x 300"]
    assert has_colour(cats.pictures[1], GREEN)


def test_of_many_near_duplicates_all_of_both_classes_are_shown(spooled):
    findings = [kept(f"Cat/{n}-{k}.jpg", group=f"g{n}") for n in range(100) for k in range(2 + 5 * (n == 50))]
    findings += [
        kept(f"{name}/{n}.jpg", label=label, group=f"h{n}") for n in range(5) for label, name in enumerate("CD")
    ]
    title, blocks = contact_sheets.near_duplicates(findings, spooled(findings), classes=CLASSES)
    assert title == f"Near duplicates: 105 groups, {len(blocks)} shown"
    assert [block.heading.startswith("cat and dog\n") for block in blocks[:6]] == [True] * 5 + [False]
    assert 28 <= sum(len(block.pictures) for block in blocks) <= 30


def test_all_sheets_are_small_files_of_the_same_bytes_and_have_the_note_in_red(spooled, tmp_path, monkeypatch):
    findings = [kept(f"Cat/{n:04}.jpg", colour=BLUE) for n in range(100)] + [kept("Dog/1.jpg", label=1)]
    for number, finding in enumerate(findings[:100]):
        finding.jpeg = photos.encode(photograph(number, (320, 240)))
    pixels = spooled(findings)
    assert contact_sheets.refused(findings, pixels) == ("Refused: 0 of 101 files", [])
    assert contact_sheets.near_duplicates(findings, pixels, classes=CLASSES) == ("Near duplicates: 0 groups", [])
    for name in ("one", "again"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        contact_sheets.draw(findings, pixels, classes=CLASSES, note="drawings")
    for path in (*paths.PHOTOGRAPHS, paths.REFUSED, paths.NEAR_DUPLICATES):
        assert path.read_bytes() == (tmp_path / "one" / path).read_bytes()
        assert path.stat().st_size < 400_000
        drawn = np.asarray(Image.open(path).convert("RGB"))
        # In a palette of 256 colours, a hundred photographs leave only a near red.
        assert has_colour(drawn, (180, 35, 24)) or path == paths.PHOTOGRAPHS[0], path


def test_a_block_has_a_caption_for_each_picture(tmp_path):
    with pytest.raises(ValueError, match=r"1 \w+, 2 captions"):
        sheets.block_sheet([sheets.Block(["empty"], ["a", "b"])], tmp_path / "x.png", title="t")


def test_blocks_stand_side_by_side_while_there_is_room(tmp_path):
    # Two pictures in each block, four columns: two blocks, then one below.
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    blocks = [sheets.Block([np.full((50, 50, 3), c, np.uint8)] * 2, ["a", "b"], "heading") for c in colours]
    sheets.block_sheet(blocks, tmp_path / "x.png", title="t", columns=4, cell=50)
    sheet = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
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
