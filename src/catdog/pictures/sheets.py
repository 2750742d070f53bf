"""Contact sheets: pictures in rows, each above its caption; those that belong together in a block under a heading."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from catdog.base import files
from catdog.photographs import photos
from catdog.photographs.shards import Shard
from catdog.pictures.style import ALARM, GREY, INK

PAPER, PANEL, TILE = "#ffffff", "#f1f4f7", "#dde3e9"
_GAP = 12


@dataclass(frozen=True)
class Block:
    """Pictures that belong together, on a panel of their own if they have a heading.

    Attributes:
        pictures: uint8 (height, width, 3) RGB of any size; or a text, which is written on a tile.
        captions: one for each picture. Where the first line is too long for its cell, its middle is left out. Further
            lines are grey, and wrapped.
        heading: its first line is bold, further ones are grey.
    """

    pictures: Sequence[np.ndarray | str]
    captions: Sequence[str]
    heading: str = ""


def tail(path: str) -> str:
    """A file's name and its folder's: what fits under a thumbnail."""
    return "/".join(path.split("/")[-2:])


def block_sheet(
    blocks: list[Block],
    path: Path,
    *,
    title: str,
    note: str = "",
    columns: int = 6,
    cell: int = 170,
) -> None:
    """Write a PNG of blocks in their order, side by side as long as about `columns` pictures fit in a row.

    Without blocks it says "none". It has 256 colours, since sheets are kept in git.

    Args:
        note: stands under the title, in red.
        cell: pixels; each picture is shrunk or enlarged to fit a square of that side.
    """
    large, top = _font(20, bold=True), 50 + (22 if note else 0)
    panels = [_panel(block, columns=columns, cell=cell) for block in blocks]
    room = max([columns * (cell + _GAP + _padding(b)) - _GAP for b in blocks] + [p.width for p in panels], default=0)
    places, left, right, bottom = [], _GAP, 0, top
    for panel in panels:
        if left > _GAP and left + panel.width > _GAP + room:
            left, top = _GAP, bottom
        places.append((left, top))
        left += panel.width + _GAP
        right, bottom = max(right, left), max(bottom, top + panel.height + _GAP)
    width = max(right, int(large.getlength(title)) + 2 * _GAP)
    sheet = Image.new("RGB", (width, bottom if blocks else bottom + 30), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 14), title, INK, large)
    if note:
        draw.text((_GAP, 44), note, ALARM, _font(14, bold=True))
    if not blocks:
        draw.text((_GAP, top), "none", GREY, _font(14))
    for panel, place in zip(panels, places, strict=True):
        sheet.paste(panel, place)
    buffer = io.BytesIO()
    # Not dithered: that takes a fifth more bytes, and white paper comes out grey.
    sheet.quantize(256).save(buffer, "PNG", optimize=True)
    files.write_bytes(path, buffer.getvalue())


def variants_sheet(originals: Shard, variants: Shard, path: Path, *, shown: int) -> None:
    """A sheet of `shown` photographs of a shard, evenly over it, each beside its variants.

    `variants` has as many for each photograph, in the order of `originals`.
    """
    per_original = len(variants) // max(len(originals), 1)
    beside = min(per_original, 5)
    images, captions = [], []
    for index in np.linspace(0, len(originals) - 1, min(shown, len(originals)), dtype=int).tolist():
        images += [photos.decode(originals.jpeg(index))]
        images += [photos.decode(variants.jpeg(index * per_original + number)) for number in range(beside)]
        captions += ["original", *(f"variant {number + 1} of {per_original}" for number in range(beside))]
    columns = (1 + beside) * max(1, 6 // (1 + beside))
    blocks = [Block(images, captions)] if images else []
    block_sheet(blocks, path, title="Training photographs and their variants", columns=columns)


def _panel(block: Block, *, columns: int, cell: int) -> Image.Image:
    if len(block.pictures) != len(block.captions):
        received = f"{len(block.pictures)} images, {len(block.captions)} captions"
        raise ValueError(f"a caption for each image. Received: {received}")
    size = 14 if cell >= 150 else 12
    small, bold, line, edge = _font(size), _font(size, bold=True), size + 4, _padding(block)
    captions = [_caption_lines(caption, small, cell) for caption in block.captions]
    heading = block.heading.split("\n") if block.heading else []
    columns = max(1, min(columns, len(captions)))
    pitch = cell + 6 + line * max((len(lines) for lines in captions), default=1) + _GAP
    width = max([columns * (cell + _GAP) - _GAP, *(int(bold.getlength(text)) + 1 for text in heading)])
    above = edge + (line * len(heading) + 6 if heading else 0)
    height = above + -(-len(captions) // columns) * pitch - _GAP + edge
    panel = Image.new("RGB", (width + 2 * edge, height), PANEL if heading else PAPER)
    draw = ImageDraw.Draw(panel)
    for number, text in enumerate(heading):
        draw.text((edge, edge + number * line), text, GREY if number else INK, small if number else bold)
    for index, (picture, lines) in enumerate(zip(block.pictures, captions, strict=True)):
        left, top = edge + index % columns * (cell + _GAP), above + index // columns * pitch
        image = _tile(picture, small, cell) if isinstance(picture, str) else Image.fromarray(picture)
        image = ImageOps.contain(image, (cell, cell), Image.Resampling.LANCZOS)
        panel.paste(image, (left, top + cell - image.height))
        for number, text in enumerate(lines):
            draw.text((left, top + cell + 6 + line * number), text, GREY if number else INK, small)
    return panel


def _padding(block: Block) -> int:
    return 10 if block.heading else 0


def _tile(text: str, font: ImageFont.FreeTypeFont, cell: int) -> Image.Image:
    tile = Image.new("RGB", (cell, cell), TILE)
    words = "\n".join(_wrapped(text, font, cell - 16)[: (cell - 16) // 16])
    ImageDraw.Draw(tile).multiline_text((8, 8), words, GREY, font)
    return tile


def _caption_lines(caption: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    first, *others = caption.split("\n")
    return [_shortened(first, font, width)] + [line for other in others for line in _wrapped(other, font, width)[:3]]


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines += [_shortened(word, font, width)]
    return [line for line in lines if line]


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib's own font, the same on every machine; it has Greek and Cyrillic, which Pillow's lacks.
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return "…"
