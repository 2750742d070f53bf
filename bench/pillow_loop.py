"""The loop that a person would write with Pillow, in a file of its own, so that its processes start soon."""

import io
from pathlib import Path

from PIL import Image


def shrink(path: Path, *, out: Path, size: int) -> None:
    """Open, verify, shrink to a short side of `size` pixels at most, and save as JPEG in the folder `out`."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        picture = image.convert("RGB")
    scale = min(1, size / min(picture.size))
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    picture.save(out / f"{path.parent.name}-{path.name}", "JPEG", quality=95)
