"""One photograph: every format, every kind of damage, and what becomes of its pixels."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from conftest import jpeg, photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catdog.base import parallel
from catdog.photographs import photos
from catdog.preparation import archives, inspection

WIDTH, HEIGHT = 96, 72
PICTURE = photograph(1, (WIDTH, HEIGHT))
GREY = PICTURE[..., 1]
PALETTE = Image.fromarray(PICTURE).quantize(256)
BLACK_OR_WHITE = np.where(GREY > 128, 255, 0).astype(np.uint8)
ONE_BIT = Image.fromarray(BLACK_OR_WHITE).convert("1")


def saved(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def with_alpha(alpha: np.ndarray | int) -> Image.Image:
    image = Image.fromarray(PICTURE)
    image.putalpha(Image.fromarray(np.broadcast_to(np.uint8(alpha), GREY.shape).copy()))
    return image


def animation() -> bytes:
    frames = [Image.fromarray(photograph(seed, (WIDTH, HEIGHT))).quantize(256) for seed in (1, 2, 3)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def camera_jpeg(**options) -> bytes:
    """With an EXIF block that holds a thumbnail, a complete JPEG inside the JPEG."""
    return saved(PICTURE, "JPEG", quality=95, exif=Image.Exif().tobytes() + b"\0" * 20 + jpeg(2, (40, 30)), **options)


def ycck_jpeg() -> bytes:
    """As Photoshop writes it: Adobe's transform 2, where cyan, magenta and yellow went through RGB to YCbCr."""
    *cmy, black = Image.fromarray(PICTURE).convert("CMYK").split()
    # Pillow inverts what it writes as CMYK; of the three, it is not to.
    luma = [Image.fromarray(255 - np.asarray(band)) for band in Image.merge("RGB", cmy).convert("YCbCr").split()]
    data = bytearray(saved(Image.merge("CMYK", (*luma, black)), "JPEG", quality=95))
    at = data.index(b"Adobe") + len("Adobe") + 6
    assert data[at] == 0
    data[at] = 2
    return bytes(data)


def grey_with_alpha(alpha: int) -> Image.Image:
    return Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(np.full_like(GREY, alpha))))


def png_of_16_bits(alpha: int | None = None) -> bytes:
    values = PICTURE[..., ::-1].astype(np.uint16) * 257
    if alpha is not None:
        values = np.dstack([values, np.full(GREY.shape, alpha, np.uint16)])
    return cv2.imencode(".png", values)[1].tobytes()


def two_frames(kind: str) -> bytes:
    second = Image.fromarray(photograph(2, (WIDTH, HEIGHT)))
    return saved(PICTURE, kind, save_all=True, append_images=[second], quality=95)


FILES = {
    "baseline JPEG": (saved(PICTURE, "JPEG", quality=95), "JPEG", PICTURE),
    "progressive JPEG": (saved(PICTURE, "JPEG", quality=95, progressive=True), "JPEG", PICTURE),
    "JPEG without subsampling": (saved(PICTURE, "JPEG", quality=95, subsampling=0), "JPEG", PICTURE),
    "JPEG in RGB": (saved(PICTURE, "JPEG", quality=95, keep_rgb=True), "JPEG", PICTURE),
    "JPEG with restart markers": (saved(PICTURE, "JPEG", quality=95, restart_marker_blocks=2), "JPEG", PICTURE),
    "JPEG with a thumbnail": (camera_jpeg(), "JPEG", PICTURE),
    "JPEG with bytes after its end": (saved(PICTURE, "JPEG", quality=95) + b"and so on", "JPEG", PICTURE),
    "JPEG of several pictures": (two_frames("MPO"), "JPEG", PICTURE),
    "grey JPEG": (saved(GREY, "JPEG", quality=95), "JPEG", GREY),
    "CMYK JPEG": (saved(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95), "JPEG", PICTURE),
    "YCCK JPEG": (ycck_jpeg(), "JPEG", PICTURE),
    "PNG": (saved(PICTURE, "PNG"), "PNG", PICTURE),
    "palette PNG": (saved(PALETTE, "PNG"), "PNG", PICTURE),
    "PNG of 1 bit": (saved(ONE_BIT, "PNG"), "PNG", BLACK_OR_WHITE),
    "grey PNG of 16 bits": (saved(GREY.astype(np.uint16) * 257, "PNG"), "PNG", GREY),
    "colour PNG of 16 bits": (png_of_16_bits(), "PNG", PICTURE),
    "opaque PNG": (saved(with_alpha(255), "PNG"), "PNG", PICTURE),
    "opaque grey PNG": (saved(grey_with_alpha(255), "PNG"), "PNG", GREY),
    "GIF": (animation(), "GIF", PICTURE),
    "BMP": (saved(PICTURE, "BMP"), "BMP", PICTURE),
    "palette BMP": (saved(PALETTE, "BMP"), "BMP", PICTURE),
    "BMP of 1 bit": (saved(ONE_BIT, "BMP"), "BMP", BLACK_OR_WHITE),
    "WebP": (saved(PICTURE, "WEBP", quality=95), "WEBP", PICTURE),
    "lossless WebP": (saved(PICTURE, "WEBP", lossless=True), "WEBP", PICTURE),
    "opaque WebP": (saved(with_alpha(255), "WEBP", lossless=True), "WEBP", PICTURE),
    "animated WebP": (two_frames("WEBP"), "WEBP", PICTURE),
    "TIFF": (saved(PICTURE, "TIFF", compression="tiff_lzw"), "TIFF", PICTURE),
    "TIFF of JPEG": (saved(PICTURE, "TIFF", compression="jpeg", quality=95), "TIFF", PICTURE),
    "TIFF of a fax": (saved(ONE_BIT, "TIFF", compression="group4"), "TIFF", BLACK_OR_WHITE),
    "TIFF of two pages": (two_frames("TIFF"), "TIFF", PICTURE),
    "CMYK TIFF": (saved(Image.fromarray(PICTURE).convert("CMYK"), "TIFF"), "TIFF", PICTURE),
    "grey TIFF of 16 bits": (saved(GREY.astype(np.uint16) * 257, "TIFF"), "TIFF", GREY),
    "grey TIFF of floats": (saved(GREY.astype(np.float32) / 255, "TIFF"), "TIFF", GREY),
}


def close(image: np.ndarray, expected: np.ndarray, tolerance: float = 6) -> bool:
    if expected.ndim == 2:
        expected = expected[..., None]
    return bool(np.abs(image.astype(float) - expected).mean() < tolerance)


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_its_picture(name):
    data, kind, expected = FILES[name]
    photo = photos.standardise(data, image_size=299)
    assert (photo.width, photo.height, photo.format) == (WIDTH, HEIGHT, kind)
    decoded = photos.decode(photo.jpeg)
    assert decoded.shape == (HEIGHT, WIDTH, 3)
    assert close(decoded, expected)
    assert not close(decoded, photograph(2, (WIDTH, HEIGHT)), 20)  # the test can tell


def standard(data: bytes) -> np.ndarray:
    return photos.decode(photos.standardise(data, image_size=299).jpeg)


def test_what_is_transparent_is_white():
    half = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255)
    decoded = standard(saved(with_alpha(half), "PNG"))
    edge = 8  # of JPEG's blocks
    assert decoded[:, : WIDTH // 2 - edge].min() > 245
    assert close(decoded[:, WIDTH // 2 + edge :], PICTURE[:, WIDTH // 2 + edge :])
    few_colours = Image.fromarray(PICTURE).quantize(64)
    for kind in ("PNG", "GIF"):
        assert standard(saved(few_colours, kind, transparency=few_colours.getpixel((0, 0))))[0, 0].min() > 245


HALF = PICTURE / 2 + 127.5
TRANSLUCENT = {
    "PNG": (saved(with_alpha(128), "PNG"), HALF),
    "PNG of 16 bits": (png_of_16_bits(128 * 257), HALF),
    "grey PNG": (saved(grey_with_alpha(128), "PNG"), GREY / 2 + 127.5),
    "palette PNG": (saved(PALETTE, "PNG", transparency=bytes([128] * 256)), HALF),
    "lossy WebP": (saved(with_alpha(128), "WEBP", quality=95), HALF),
    "lossless WebP": (saved(with_alpha(128), "WEBP", lossless=True), HALF),
    "TIFF": (saved(with_alpha(128), "TIFF"), HALF),
}


@pytest.mark.parametrize("name", TRANSLUCENT)
def test_alpha_is_laid_on_white(name):
    data, expected = TRANSLUCENT[name]
    assert close(standard(data), expected)


# By the EXIF standard: orientation n means that the file's first row and column are the picture's ... and ...
STORED = {
    1: lambda picture: picture,  # top, left
    2: lambda picture: picture[:, ::-1],  # top, right
    3: lambda picture: picture[::-1, ::-1],  # bottom, right
    4: lambda picture: picture[::-1],  # bottom, left
    5: lambda picture: picture.transpose(1, 0, 2),  # left, top
    6: lambda picture: picture.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda picture: picture.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda picture: picture.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_upright(kind, orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    data = saved(np.ascontiguousarray(STORED[orientation](PICTURE)), kind, exif=block, quality=95)
    for image_size in (299, 24):  # as it is, and shrunk by the decoder
        photo = photos.standardise(data, image_size=image_size)
        assert (photo.width, photo.height) == (WIDTH, HEIGHT)
        side = min(HEIGHT, image_size)
        expected = cv2.resize(PICTURE, (side * 4 // 3, side), interpolation=cv2.INTER_AREA)
        assert close(photos.decode(photo.jpeg), expected)
        # In standard form nothing is left to turn.
        assert photos.standardise(photo.jpeg, image_size=image_size).jpeg == photo.jpeg


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of entries (tag, type, count, value in 4 bytes)."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


TURN = (0x0112, 3, 1, b"\6\0\0\0")
EXIF = {
    "no such orientation": (exif((0x0112, 3, 1, b"\x09\0\0\0")), False),
    "text for an orientation": (exif((0x0112, 2, 4, b"six\0")), False),
    "nonsense": (b"Exif\0\0MM\0*nonsense", False),
    "text for a resolution": (exif(TURN, (0x011A, 2, 4, b"abc\0")), True),
    "text for a number": (exif(TURN, (0x0128, 2, 4, b"abc\0")), True),
    "a number for text": (exif(TURN, (0x010E, 5, 1, bytes(4))), True),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of corrupt EXIF data
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("name", EXIF)
def test_damage_to_exif_says_nothing_about_the_pixels(name, mode):
    block, turned = EXIF[name]
    photo = photos.standardise(saved(Image.fromarray(PICTURE).convert(mode), "JPEG", exif=block), image_size=299)
    assert (photo.width, photo.height) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))


@pytest.mark.parametrize("name", ["baseline JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF"])
@pytest.mark.parametrize("ending", ["jpg", "png", "txt"])
def test_the_content_decides_not_the_name(name, ending, tmp_path):
    misnamed = tmp_path / f"photo.{ending}"
    misnamed.write_bytes(FILES[name][0])
    file = archives.File(f"cat/photo.{ending}", 0, None, str(misnamed))
    finding = inspection.inspect_file(file, inspection.Settings(image_size=299, min_side=16, max_megapixels=64))
    assert (finding.reason, finding.format, finding.width, finding.height) == ("", FILES[name][1], WIDTH, HEIGHT)


def huge(kind: str) -> bytes:
    """A few bytes whose header promises 50,000 x 40,000 pixels; there is nothing to decode."""
    data = bytearray(saved(PICTURE[:8, :8], kind))
    width, height = 50_000, 40_000
    if kind == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.filterwarnings("error")  # Pillow's own limit only warns
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_bomb_is_refused_by_its_header(kind):
    with pytest.raises(photos.Unreadable, match=r"^too large: 50000 x 40000 pixels, the limit is 64 megapixels$"):
        photos.standardise(huge(kind), image_size=299)


def misleading_tiff() -> bytes:
    """It says text where its pixels should begin."""
    data, entry = saved(PICTURE, "TIFF"), struct.pack("<HH", 0x0111, 4)
    assert data.count(entry) == 1
    return data.replace(entry, struct.pack("<HH", 0x0111, 2))


REFUSED = {
    "empty": (b"", "^empty$"),
    "text": (b"Not a photograph.\n", "^not an image$"),
    "HTML": (b"<!doctype html><title>404</title>", "^not an image$"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "^not an image$"),
    "half a JPEG": (jpeg(1)[:1500], "^truncated$"),
    "a JPEG without its last byte": (jpeg(1)[:-1], "^truncated$"),
    "a progressive JPEG without its last scans": (FILES["progressive JPEG"][0][:-1000], "^truncated$"),
    # The thumbnail's end is not the end.
    "a camera's JPEG cut short": (camera_jpeg()[:-500], "^truncated$"),
    "a camera's JPEG cut in its first scan": (camera_jpeg(progressive=True)[:-1500], "^truncated$"),
    "a JPEG cut before its scan": (jpeg(1)[: jpeg(1).index(b"\xff\xda")], "^truncated$"),
    "half a CMYK JPEG": (FILES["CMYK JPEG"][0][:-1500], "^truncated$"),
    "half a PNG": (FILES["PNG"][0][:2000], "^truncated$"),
    "half a GIF": (animation()[:2000], "^(truncated|damaged: .+)$"),
    "half a BMP": (FILES["BMP"][0][:5000], "^truncated$"),
    "half a WebP": (FILES["WebP"][0][:500], "^damaged: .+$"),
    "half a TIFF": (FILES["TIFF"][0][:5000], "^truncated$"),
    "half a TIFF that begins with its directory": (FILES["grey TIFF of 16 bits"][0][:5000], "^truncated$"),
    "a misleading TIFF": (misleading_tiff(), "^damaged: .+$"),
    "a JPEG of nothing but its beginning": (b"\xff\xd8\xff\xe0", "^damaged: unreadable header$"),
    "a PNG of nothing but its beginning": (FILES["PNG"][0][:12], "^damaged: unreadable header$"),
    "too large": (saved(photograph(1, (1100, 1000)), "JPEG"), r"^too large: 1100 x 1000 pixels, .* 1 megapixels$"),
    "too small": (saved(photograph(1, (100, 15)), "PNG"), "^too small: 100 x 15 pixels, the limit is 16$"),
    "flat": (saved(np.full((80, 80, 3), 117, np.uint8), "JPEG"), "^a single flat colour$"),
    "nothing but transparent": (saved(with_alpha(0), "PNG"), "^a single flat colour$"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of corrupt data
@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_of_a_refusal(name):
    data, reason = REFUSED[name]
    with pytest.raises(photos.Unreadable, match=reason):
        photos.standardise(data, image_size=299, min_side=16, max_megapixels=1)


def damaged_inside(harm: bytes) -> bytes:
    """`harm` in place of some of the pixels' data."""
    data = saved(PICTURE, "JPEG", quality=95)
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    return data[:middle] + harm + data[middle + len(harm) :]


def without_an_interval() -> bytes:
    data = FILES["JPEG with restart markers"][0]
    return data[: data.index(b"\xff\xd2")] + data[data.index(b"\xff\xd3") :]


def padded(at: bytes) -> bytes:
    data = FILES["JPEG with restart markers"][0]
    return data.replace(at, bytes(128) + at)


# What libjpeg warns of, and the reason where part of the picture is lost; None where any will do.
WARNED_OF = {
    "cut, then ended anew": (jpeg(1)[:2000] + b"\xff\xd9", "damaged: premature end of data segment"),
    "codes that mean nothing": (damaged_inside(b"\xff\0" * 20), "damaged: bad Huffman code"),
    "a restart interval lost": (without_an_interval(), "damaged: found marker 0xd3 instead of RST2"),
    "bytes too many inside": (padded(b"\xff\xd3"), "damaged: 128 extraneous bytes before marker 0xd3"),
    "bytes too many before the end": (padded(b"\xff\xd9"), ""),
    "unknown revision of JFIF": (jpeg(1).replace(b"JFIF\0\1", b"JFIF\0\0"), ""),
    "damaged EXIF": (saved(PICTURE, "JPEG", exif=EXIF["nonsense"][0]), ""),
    "a fax of nonsense": (FILES["TIFF of a fax"][0].replace(FILES["TIFF of a fax"][0][8:40], bytes(range(32))), None),
    "a misleading TIFF": (misleading_tiff(), None),
}


def reason(data: bytes) -> str:
    try:
        photos.standardise(data, image_size=299)
    except photos.Unreadable as error:
        return str(error)
    return ""


def test_lost_parts_are_told_from_harmless_faults_and_the_terminal_stays_clean(capfd):
    files = [*WARNED_OF.items()] * 2
    here = parallel.threaded(reason, [data for _, (data, _) in files], ahead=8)
    workers = parallel.chunked_map(reason, [data for _, (data, _) in files], workers=1)
    for (name, (_, expected)), on_thread, in_worker in zip(files, here, workers, strict=True):
        assert on_thread == in_worker
        assert on_thread == expected or expected is None, name
    assert capfd.readouterr().err == ""


def test_a_strip_longer_than_a_jpeg_can_be_is_refused_unless_it_shrinks():
    strip = saved(photograph(1, (20, 66_000)), "PNG")
    with pytest.raises(photos.Unreadable, match=r"^too long: 20 x 66000 pixels, the limit is 65500 when shrunk$"):
        photos.standardise(strip, image_size=20)
    assert photos.standardise(strip, image_size=10).height == 66_000


def test_limits_are_inclusive():
    photos.standardise(saved(photograph(1, (1000, 1000)), "JPEG"), image_size=64, max_megapixels=1)
    photos.standardise(saved(photograph(1, (16, 40)), "PNG"), image_size=64, min_side=16)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(8, 400), height=st.integers(8, 400), image_size=st.integers(8, 300), kind=st.booleans())
def test_the_short_side_shrinks_to_image_size_and_never_grows(width, height, image_size, kind):
    data = saved(photograph(3, (width, height)), "JPEG" if kind else "PNG")
    photo = photos.standardise(data, image_size=image_size)
    assert (photo.width, photo.height) == (width, height)
    now = photos.decode(photo.jpeg).shape[1::-1]
    assert min(now) == min(width, height, image_size)
    # To the pixel, and one more where the decoder shrank first and rounded up.
    assert abs(max(now) - max(width, height) * min(now) / min(width, height)) < 1.5 + max(now) / min(now)


def test_a_jpeg_in_standard_form_keeps_its_bytes():
    for data in (jpeg(1), FILES["progressive JPEG"][0]):
        assert photos.standardise(data, image_size=HEIGHT).jpeg == data
        assert photos.standardise(data, image_size=HEIGHT - 1).jpeg != data
    assert photos.standardise(FILES["grey JPEG"][0], image_size=299).jpeg != FILES["grey JPEG"][0]


@pytest.mark.parametrize("size", [24, 64, 72, 150])
@pytest.mark.parametrize("name", ["baseline JPEG", "CMYK JPEG", "PNG"])
def test_pixels_for_a_model(name, size):
    pixels = photos.pixels(photos.standardise(FILES[name][0], image_size=64).jpeg, size)
    assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
    assert close(pixels, cv2.resize(PICTURE, (size, size), interpolation=cv2.INTER_AREA))


MAGIC = [data[:12] for data, _, _ in FILES.values()] + [b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X", b"II*\0", b"MM\0*"]


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.binary(), st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=200))))
@pytest.mark.filterwarnings("ignore")
def test_no_bytes_do_worse_than_be_unreadable(data):
    readable(data)


@pytest.mark.parametrize(
    ("cases", "names"),
    [
        (2000, ["baseline JPEG", "progressive JPEG", "grey JPEG", "CMYK JPEG", "JPEG with a thumbnail"]),
        (600, ["PNG", "palette PNG", "grey PNG of 16 bits", "GIF", "BMP", "WebP", "TIFF", "grey TIFF of 16 bits"]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_do_no_worse_than_be_unreadable(cases, names):
    rng = np.random.default_rng(5)
    survived = 0
    for case in range(cases):
        data = bytearray(FILES[names[case % len(names)]][0])
        for _ in range(rng.integers(1, 6)):
            # Half of the damage to the headers, which decoders believe.
            at = rng.integers(200 if rng.random() < 0.5 else len(data))
            data[at] = rng.integers(256)
        if rng.random() < 0.1:
            del data[rng.integers(len(data)) :]
        survived += readable(bytes(data))
    assert 0.2 * cases < survived < 0.9 * cases


def readable(data: bytes) -> bool:
    try:
        photo = photos.standardise(data, image_size=32, max_megapixels=1)
    except photos.Unreadable as error:
        if "\n" in str(error):
            raise
        return False
    # Once taken, it can be used at any size.
    assert photos.decode(photo.jpeg).ndim == 3
    for size in (8, 24, 90):
        assert photos.pixels(photo.jpeg, size).shape == (size, size, 3)
    return True


RNG = np.random.default_rng(0)
LARGE = {
    "grey of 16 bits": Image.fromarray(RNG.integers(0, 65536, (40, 50), dtype=np.uint16)),
    "transparent": Image.fromarray(RNG.integers(0, 256, (40, 50, 4), dtype=np.uint8)),
    "palette": Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)).quantize(64),
}


@pytest.mark.parametrize("name", LARGE)
def test_memory_of_decoding_has_a_bound(name, tmp_path):
    file = tmp_path / "large.png"
    LARGE[name].resize((8000, 8000), Image.Resampling.NEAREST).save(file, compress_level=1)
    code = """
import pathlib, re, sys
from catdog.photographs import photos
photos.standardise(pathlib.Path(sys.argv[1]).read_bytes(), image_size=64)
# Not ru_maxrss, which begins at the peak of the process that started this one.
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    # The picture as Pillow holds it, and as RGB; the libraries themselves are some 100 MB.
    assert int(done.stdout) * 1024 < 64e6 * (4 + 3) + 200e6
