"""Contact sheets: photographs in rows, each above its caption."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from catdog import files, photos
from catdog.shards import Shard

INK, GREY = "#1b1f24", "#6a737d"


def contact_sheet(
    images: list[np.ndarray], captions: list[str], path: Path, *, title: str, columns: int = 6, cell: int = 170
) -> None:
    """Images in rows, each above its caption.

    Args:
        images: uint8 (height, width, 3) RGB of any size; shrunk or enlarged to fit a square of `cell` pixels.
        captions: one for each image; lines longer than the cell lose their middle, so that both ends can be read.
    """
    if len(images) != len(captions):
        raise ValueError(f"a caption for each image. Received: {len(images)} images, {len(captions)} captions")
    small, large, gap = _font(14), _font(20, bold=True), 12
    columns = max(1, min(columns, len(images)))
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    height = cell + 6 + 18 * lines + gap
    rows = -(-len(images) // columns)
    width = max(columns * (cell + gap) + gap, int(large.getlength(title)) + 2 * gap)
    sheet = Image.new("RGB", (width, 50 + max(rows * height, 30)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 14), title, INK, large)
    if not images:
        draw.text((gap, 50), "none", GREY, small)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = gap + index % columns * (cell + gap), 50 + index // columns * height
        picture = ImageOps.contain(Image.fromarray(image), (cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top + cell - picture.height))
        for line, text in enumerate(caption.split("\n")):
            draw.text(
                (left, top + cell + 6 + 18 * line), _shortened(text, small, cell), INK if not line else GREY, small
            )
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    files.write_bytes(path, buffer.getvalue())


def variants_sheet(originals: Shard, variants: Shard, path: Path, *, shown: int) -> None:
    """Some photographs of a shard, evenly over it, each beside its variants, which stand one after the other."""
    each = len(variants) // max(len(originals), 1)
    beside = min(each, 5)
    images, captions = [], []
    for index in np.unique(np.linspace(0, len(originals) - 1, min(shown, len(originals))).astype(int)):
        images += [photos.decode(originals.jpeg(int(index)))]
        images += [photos.decode(variants.jpeg(int(index) * each + k)) for k in range(beside)]
        captions += ["original"] + [f"variant {k + 1} of {each}" for k in range(beside)]
    columns = (1 + beside) * max(1, 6 // (1 + beside))
    contact_sheet(images, captions, path, title="Training photographs and their variants", columns=columns)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib's own font, the same on every machine; it has Greek and Cyrillic, which Pillow's lacks.
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        tried = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(tried) <= width:
            return tried
    return "…"
