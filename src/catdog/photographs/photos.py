"""Decode, check, turn upright and resize one photograph. Training, evaluation, prediction and serving all come through
here, so they see the same pixels: there is no second decoder.

OpenCV decodes ordinary JPEGs, shrinking while it decodes; Pillow reads every header, and decodes the rest.
"""

import functools
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Literal

import cv2
import numpy as np
from PIL import Image

from catdog.photographs import parallel

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_TIFF: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION = 0x0112  # EXIF tag
_JPEG_QUALITY = 95
_JPEG_SIDE = 65_500  # pixels; libjpeg's limit
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_FLAT = 2  # of 255: what a flat colour may vary by, after compression
# What libjpeg says, of much that it says, only where part of the picture is lost. Extraneous bytes before the end
# marker (0xd9) are not among it: whole photographs have them too.
_LOST = re.compile(
    r"premature end of data segment|Premature end of JPEG file|bad (Huffman|arithmetic) code"
    r"|found marker 0x\w+ instead of RST\d|\d+ extraneous bytes before marker 0xd[0-7]"
)


class Unreadable(Exception):
    """Why a file can't be used as a photograph, as `category` or `category: detail`, for a person to read."""


@dataclass(frozen=True)
class Photo:
    """A photograph in its standard form; width, height (upright, pixels) and format are those of its file.

    `image` is what went into `jpeg`: uint8 (height, width, 3), RGB.
    """

    jpeg: bytes
    image: np.ndarray = field(repr=False, compare=False)
    width: int
    height: int
    format: str


def standardise(data: bytes, *, image_size: int, min_side: int = 1, max_megapixels: float = 64) -> Photo:
    """Bring a file's bytes into the standard form: a JPEG, RGB, upright, its short side at most `image_size` pixels.

    The format goes by content, never by name; alpha is laid on white; of an animation the first frame counts. A JPEG
    that already has the standard form keeps its bytes.

    libjpeg tells of damage inside a JPEG on stderr alone, which a whole process shares, so such damage is found, and
    the terminal kept clean, where a process has it to itself: in the workers of `parallel`. Of bytes that are wrong
    but still mean something to the decoder nobody can tell.

    Raises:
        Unreadable: empty, not an image, truncated or damaged, too large, too small, or of one flat colour.
    """
    with _overheard() as said:
        photo = _standardise(data, image_size=image_size, min_side=min_side, max_megapixels=max_megapixels)
    if lost := _LOST.search("".join(said)):
        raise Unreadable(f"damaged: {lost[0]}")
    return photo


def _standardise(data: bytes, *, image_size: int, min_side: int, max_megapixels: float) -> Photo:
    header = _open(data)
    width, height = header.size
    if width * height > max_megapixels * 1e6:
        raise Unreadable(f"too large: {width} x {height} pixels, the limit is {max_megapixels:g} megapixels")
    if min(width, height) < min_side:
        raise Unreadable(f"too small: {width} x {height} pixels, the limit is {min_side}")
    orientation = _orientation(header)
    plain_jpeg = header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L")
    try:
        if plain_jpeg:
            image = _decode_jpeg(data, short_side=min(width, height), wanted=image_size)
        else:
            image = _decode_other(header)
    except Unreadable:
        raise
    except Exception as error:  # as with headers, damage may raise anything
        raise Unreadable(f"damaged: {_one_line(error)}") from None
    image = _shrink(image, image_size)
    if max(image.shape) > _JPEG_SIDE:
        raise Unreadable(f"too long: {width} x {height} pixels, the limit is {_JPEG_SIDE} when shrunk")
    if _is_flat(image):
        raise Unreadable("a single flat colour")
    image = _upright(image, orientation)
    if orientation >= 5:
        width, height = height, width
    as_it_is = plain_jpeg and header.mode == "RGB" and orientation == 1 and min(width, height) <= image_size
    return Photo(
        jpeg=data if as_it_is else encode(image),
        image=image,
        width=width,
        height=height,
        format="JPEG" if header.format == "MPO" else str(header.format),
    )


def pixels(jpeg: bytes, size: int) -> np.ndarray:
    """Decode a standard-form JPEG into what a model is given: uint8 (size, size, 3), RGB, squashed to the square."""
    width, height = Image.open(io.BytesIO(jpeg), formats=("JPEG",)).size
    image = _decode_jpeg(jpeg, short_side=min(width, height), wanted=size)
    if image.shape[:2] == (size, size):
        return image
    shrinking = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def decode(jpeg: bytes) -> np.ndarray:
    """Decode a standard-form JPEG at its own size: uint8 (height, width, 3), RGB."""
    return _decode_jpeg(jpeg, short_side=0, wanted=1)


def encode(image: np.ndarray) -> bytes:
    """Write uint8 (height, width, 3) RGB as a JPEG."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise ValueError("OpenCV could not encode the image")
    return jpeg.tobytes()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise Unreadable("empty")
    # The limit in pixels is ours, and tighter; Pillow's own would only warn.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise Unreadable(_not_identified(data)) from None
    except Exception as error:  # Pillow's header parsers raise nearly anything on hostile bytes
        raise Unreadable(f"damaged: {_one_line(error)}") from None


def _not_identified(data: bytes) -> str:
    order = _TIFF.get(data[:4])
    if order and int.from_bytes(data[4:8], order) >= len(data):  # what describes the picture often stands at the end
        return "truncated"
    return "damaged: unreadable header" if order or data.startswith(_BEGINNINGS) else "not an image"


def _orientation(header: Image.Image) -> int:
    if header.format == "TIFF":  # Pillow turns these by itself, and gives their upright size
        return 1
    try:
        orientation = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _refuse_if_cut(jpeg: bytes) -> None:
    # What libjpeg does about a file that ends early is up to who calls it, from an error to filling in grey.
    at = 2
    # From marker to marker to the first scan: before it, a thumbnail may hold an end marker of its own.
    while 0 <= (at := jpeg.find(b"\xff", at)) < len(jpeg) - 3:
        marker = jpeg[at + 1]
        if marker == 0xDA:
            break
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # padding, and markers that stand alone
            at += 1
        else:
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    if at < 0 or jpeg.find(b"\xff\xd9", at) < 0:
        raise Unreadable("truncated")


def _decode_jpeg(data: bytes, *, short_side: int, wanted: int) -> np.ndarray:
    _refuse_if_cut(data)
    # libjpeg shrinks by 2, 4 or 8 while it decodes, several times faster than decoding all and shrinking then.
    reduction = next((r for r in _REDUCED if short_side >= r * wanted), 1)
    flag = _REDUCED.get(reduction, cv2.IMREAD_COLOR) & ~cv2.IMREAD_COLOR_BGR | cv2.IMREAD_COLOR_RGB
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise Unreadable("damaged: not decodable")
    return image


def _decode_other(image: Image.Image) -> np.ndarray:
    try:
        image.load()
    except OSError as error:
        raise Unreadable("truncated" if "truncated" in str(error) else f"damaged: {_one_line(error)}") from None
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float32)
        scale = 255 / 65535 if image.mode.startswith("I") else 255 / max(float(values.max()), 1.0)
        image = Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _is_flat(image: np.ndarray) -> bool:
    # A few pixels settle it nearly always, in a hundredth of the time.
    return all(np.ptp(part.reshape(-1, 3), axis=0).max() <= _FLAT for part in (image[::16, ::16], image))


def _shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # To more than half, bilinear is as near to an antialiased Lanczos as averaging over areas, in a third of the time.
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # After the transposition above, what remains of the eight cases is a flip.
    match orientation:
        case 2 | 6:
            image = image[:, ::-1]
        case 3 | 7:
            image = image[::-1, ::-1]
        case 4 | 8:
            image = image[::-1]
    return np.ascontiguousarray(image)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What C libraries, and Pillow, print to stderr meanwhile, which is then kept from it; in a worker only."""
    said: list[str] = []
    if not parallel.in_worker():
        yield said
        return
    stderr, file = os.dup(2), _elsewhere()
    os.dup2(file.fileno(), 2)
    try:
        yield said
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        if os.fstat(file.fileno()).st_size:
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
            file.seek(0)
            file.truncate()


@functools.cache
def _elsewhere() -> IO[bytes]:
    return tempfile.TemporaryFile(buffering=0)
