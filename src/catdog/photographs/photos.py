"""One photograph: decoded, checked, turned upright, resized. This is the only decoder, so that training, evaluation,
prediction and serving all see the same pixels.

Pillow reads every header. simplejpeg decodes ordinary JPEGs, shrinking them as it decodes; Pillow decodes the rest.
"""

import functools
import io
import re
import warnings
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_TIFF: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION = 0x0112  # EXIF tag
_JPEG_SIDE = 65_500  # pixels; libjpeg's limit
_REDUCTIONS = (8, 4, 2)  # by which libjpeg shrinks while it decodes, several times faster than decoding first
_BAND = 256  # rows
_FLAT = 2  # of 255: how much a flat colour may vary, after compression
# Warnings of libjpeg that mean that part of the picture is lost. Its others do not, nor do extraneous bytes before the
# end marker (0xd9): whole photographs have them too.
_LOST = re.compile(
    r"premature end of data segment|Premature end of JPEG file|bad (Huffman|arithmetic) code"
    r"|found marker 0x\w+ instead of RST\d|\d+ extraneous bytes before marker 0xd[0-7]"
)


class Unreadable(Exception):
    """Why a file can't be used as a photograph, in words: `category` or `category: detail`."""


@dataclass(frozen=True)
class Photo:
    """A photograph in its standard form.

    `image` holds the pixels of `jpeg` before compression: uint8 (height, width, 3), RGB. `width` and `height` (pixels,
    upright) and `format` are those of the original file.
    """

    jpeg: bytes
    image: np.ndarray
    width: int
    height: int
    format: str


def standardise(data: bytes, *, image_size: int, min_side: int = 1, max_megapixels: float = 64) -> Photo:
    """Bring a file's bytes into the standard form: a JPEG, RGB, upright, its short side at most `image_size` pixels.

    The format is told by content, not by name. Transparency becomes white. Of an animation the first frame counts. A
    JPEG already in standard form keeps its bytes.

    Wrong bytes that still decode go unnoticed.

    Raises:
        Unreadable: empty, not an image, truncated or damaged, too large, too small, or of one flat colour.
    """
    header = _open(data)
    width, height = header.size
    if width * height > max_megapixels * 1e6:
        raise Unreadable(f"too large: {width} x {height} pixels, the limit is {max_megapixels:g} megapixels")
    if min(width, height) < min_side:
        raise Unreadable(f"too small: {width} x {height} pixels, the limit is {min_side}")
    orientation = _orientation(header)
    plain_jpeg = header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L")
    try:
        image = _decode_jpeg(data, ratio=min(width, height) / image_size) if plain_jpeg else _decode_other(header)
    except Unreadable:
        raise
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise Unreadable(f"damaged: {_one_line(error)}") from None
    image = _shrink(image, image_size)
    if max(image.shape) > _JPEG_SIDE:
        raise Unreadable(f"too long: {width} x {height} pixels, the limit is {_JPEG_SIDE} when shrunk")
    if _is_flat(image):
        raise Unreadable("a single flat colour")
    image = _upright(image, orientation)
    if orientation >= 5:
        width, height = height, width
    is_standard = plain_jpeg and header.mode == "RGB" and orientation == 1 and min(width, height) <= image_size
    kind = "JPEG" if header.format == "MPO" else str(header.format)
    return Photo(data if is_standard else encode(image), image, width, height, kind)


def pixels(jpeg: bytes, size: int) -> np.ndarray:
    """Decode a standard-form JPEG for a model: uint8 (size, size, 3), RGB, squashed to the square."""
    width, height = Image.open(io.BytesIO(jpeg), formats=("JPEG",)).size
    image = _decode_jpeg(jpeg, ratio=min(width, height) / size)
    if image.shape[:2] == (size, size):
        return image
    shrinking = min(image.shape[:2]) >= size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def decode(jpeg: bytes) -> np.ndarray:
    """Decode a standard-form JPEG at its own size: uint8 (height, width, 3), RGB."""
    return _decode_jpeg(jpeg)


def encode(image: np.ndarray, *, quality: int = 95) -> bytes:
    """Write uint8 (height, width, 3) RGB as a JPEG."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise ValueError("OpenCV could not encode the image")
    return jpeg.tobytes()


def _open(data: bytes) -> Image.Image:
    if not data:
        raise Unreadable("empty")
    _silence_pillow()
    # Our own limit in pixels is lower; Pillow would only warn.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        raise Unreadable(_why_unidentified(data)) from None
    except Exception as error:  # Pillow's parsers raise nearly anything on hostile bytes
        raise Unreadable(f"damaged: {_one_line(error)}") from None


@functools.cache
def _silence_pillow() -> None:
    # It warns on stderr of whatever looks odd in a file. What matters about a file is in its answer.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _why_unidentified(data: bytes) -> str:
    order = _TIFF.get(data[:4])
    if order and int.from_bytes(data[4:8], order) >= len(data):  # a TIFF's directory often stands at its end
        return "truncated"
    return "damaged: unreadable header" if order or data.startswith(_BEGINNINGS) else "not an image"


def _orientation(header: Image.Image) -> int:
    if header.format == "TIFF":  # Pillow turns these itself, and gives their upright size
        return 1
    try:
        orientation = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _refuse_if_cut(jpeg: bytes) -> None:
    # libjpeg may fill in grey where a file ends early, so look for its end marker, from the first scan on: before that,
    # a thumbnail may hold one of its own.
    at = 2
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


def _decode_jpeg(data: bytes, *, ratio: float = 1) -> np.ndarray:
    """`ratio`: how many times larger than needed the picture is. It is shrunk by no more than that."""
    _refuse_if_cut(data)
    reduction = next((r for r in _REDUCTIONS if ratio >= r), 1)
    try:
        if reduction == 1:
            return simplejpeg.decode_jpeg(data)
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        least = {"min_height": -(-height // reduction), "min_width": -(-width // reduction)}
        return simplejpeg.decode_jpeg(data, min_factor=reduction, **least)
    except ValueError as error:  # of warnings too
        if lost := _LOST.search(str(error)):
            raise Unreadable(f"damaged: {lost[0]}") from None
    # A warning that means nothing, or no JPEG: Pillow, which takes no notice of warnings, tells the two apart.
    image = _open(data)
    image.draft("RGB", (image.width // reduction, image.height // reduction))
    return np.asarray(image.convert("RGB"))


def _decode_other(image: Image.Image) -> np.ndarray:
    try:
        image.load()
    except OSError as error:
        raise Unreadable("truncated" if "truncated" in str(error) else f"damaged: {_one_line(error)}") from None
    # By bands, else the steps between would need several times the memory of a large picture.
    lightest = 65535.0 if image.mode.startswith("I") else max(_lightest(image), 1.0)
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _BAND):
        rgb[top : top + _BAND] = _rgb(image.crop((0, top, width, min(top + _BAND, height))), lightest)
    return rgb


def _lightest(image: Image.Image) -> float:
    return float(image.getextrema()[1]) if image.mode == "F" else 255.0  # type: ignore[arg-type]


def _rgb(image: Image.Image, lightest: float) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float32) * (255 / lightest)
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _is_flat(image: np.ndarray) -> bool:
    # A few pixels nearly always decide, in a hundredth of the time.
    return all(np.ptp(part.reshape(-1, 3), axis=0).max() <= _FLAT for part in (image[::16, ::16], image))


def _shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Above half, bilinear is as close to an antialiased Lanczos as averaging areas is, in a third of the time.
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # What is left of the eight cases is a flip.
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
