"""Decode, check, turn upright and resize one photograph. Training, evaluation, prediction and serving all come through
here, so they see the same pixels: there is no second decoder.

OpenCV decodes ordinary JPEGs, shrinking while it decodes; Pillow reads every header, and decodes the rest.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_ORIENTATION = 0x0112  # EXIF tag
_JPEG_QUALITY = 95
_JPEG_SIDE = 65_500  # pixels; libjpeg's limit
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


class Unreadable(Exception):
    """Why a file can't be used as a photograph, as `category` or `category: detail`, for a person to read."""


@dataclass(frozen=True)
class Photo:
    """A photograph in its standard form; width, height (upright, pixels) and format are those of its file."""

    jpeg: bytes
    width: int
    height: int
    format: str


def standardise(data: bytes, *, image_size: int, min_side: int = 1, max_megapixels: float = 64) -> Photo:
    """Bring a file's bytes into the standard form: a JPEG, RGB, upright, its short side at most `image_size` pixels.

    The format goes by content, never by name; alpha is laid on white; of an animation the first frame counts. A JPEG
    that already has the standard form keeps its bytes.

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
    if int(np.ptp(image.reshape(-1, 3), axis=0).max()) <= 2:
        raise Unreadable("a single flat colour")
    image = _upright(image, orientation)
    if orientation >= 5:
        width, height = height, width
    as_it_is = plain_jpeg and header.mode == "RGB" and orientation == 1 and min(width, height) <= image_size
    return Photo(
        jpeg=data if as_it_is else encode(image),
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
    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
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
        raise Unreadable("not an image") from None
    except Exception as error:  # Pillow's header parsers raise nearly anything on hostile bytes
        raise Unreadable(f"damaged: {_one_line(error)}") from None


def _orientation(header: Image.Image) -> int:
    if header.format == "TIFF":  # Pillow turns these by itself, and gives their upright size
        return 1
    try:
        orientation = header.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode_jpeg(data: bytes, *, short_side: int, wanted: int) -> np.ndarray:
    # libjpeg fills what is missing of a truncated file with grey and only warns, so the end marker is looked for here.
    scan = data.find(b"\xff\xda")
    if scan < 0 or data.find(b"\xff\xd9", scan) < 0:
        raise Unreadable("truncated")
    # libjpeg shrinks by 2, 4 or 8 while it decodes, several times faster than decoding all and shrinking then.
    reduction = next((r for r in _REDUCED if short_side >= r * wanted), 1)
    flag = _REDUCED.get(reduction, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        raise Unreadable("damaged: not decodable")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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


def _shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    if min(height, width) <= short_side:
        return image
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


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
