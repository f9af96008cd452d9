"""From encoded bytes to what the model looks at."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from starlette.exceptions import HTTPException

ORIENTATION = 0x0112  # of EXIF


def photo(width: int, height: int) -> Image.Image:
    """Return a picture with soft, colored structure and no symmetry."""
    noise = np.random.default_rng(7).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def reference(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Do the same the long way: cut the middle square out of the whole picture, and let Pillow resize it."""
    side = max(1, round(min(image.size) * 224 / 256))
    left, top = ((length - side) // 2 for length in image.size)
    square = image.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(square.resize((224, 224), Image.Resampling.BILINEAR))


def difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Return the mean absolute difference in levels of 255."""
    assert one.shape == other.shape == (224, 224, 3)
    return float(np.abs(one.astype(int) - other).mean())


def blurred(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the pixels with each replaced by the mean of its block of eight by eight."""
    means = pixels.reshape(28, 8, 28, 8, 3).mean(axis=(1, 3))
    return means.repeat(8, axis=0).repeat(8, axis=1).round().astype(np.uint8)


@pytest.mark.parametrize(
    "size", [(451, 300), (300, 451), (256, 256), (224, 224), (640, 480), (100, 90), (1, 1), (700, 3)]
)
def test_is_the_middle_square(module: Any, size: tuple[int, int]) -> None:
    """The model sees the square in the middle, seven eighths of the short side wide."""
    image = photo(*size)
    off = difference(module.pixels("x", encode(image, "PNG")), reference(image))
    assert off < 0.5


@pytest.mark.parametrize("size", [(512, 512), (1024, 768), (2048, 1536), (4000, 3000)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_picture_is_made_smaller_first(module: Any, format: str, size: tuple[int, int]) -> None:
    """A large picture, decoded or averaged down to a fraction of its size, gives the same pixels."""
    image = photo(*size)
    off = difference(module.pixels("x", encode(image, format, quality=95)), reference(image))
    assert off < 1.5


def test_fine_detail_of_a_large_picture_is_averaged(module: Any) -> None:
    """A pattern much finer than the model's pixels becomes its mean, and no pattern of another kind."""
    checks = np.indices((1024, 1536)).sum(axis=0) % 2 * 255
    seen = module.pixels("x", encode(Image.fromarray(checks.astype(np.uint8)), "PNG"))
    assert np.abs(seen.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(900, 600), (450, 300)])
def test_exif_orientation(module: Any, size: tuple[int, int], format: str, orientation: int) -> None:
    """A picture is stood upright as its camera says, before it is cropped."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    image = photo(*size)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(image, format, exif=exif, quality=95)
    upright = image.transpose(turn) if turn is not None else image
    off = difference(module.pixels("x", data), reference(upright))
    assert off < 2


def test_xmp_orientation(module: Any) -> None:
    """What a camera says in XMP counts as well."""
    image = photo(450, 300)
    data = encode(image, "JPEG", xmp=b'<x:xmpmeta tiff:Orientation="3"/>', quality=95)
    assert difference(module.pixels("x", data), reference(image.transpose(Image.Transpose.ROTATE_180))) < 2


def gradient() -> Image.Image:
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    return Image.fromarray(np.tile(ramp, (280, 1)))


def half_transparent(mode: str) -> Image.Image:
    image = Image.new("RGBA", (300, 280), (200, 0, 0, 0))
    image.paste((0, 0, 200, 255), (0, 0, 300, 140))
    return image.convert(mode)


def on_white() -> Image.Image:
    image = Image.new("RGB", (300, 280), "white")
    image.paste((0, 0, 200), (0, 0, 300, 140))
    return image


def deep_png(color_type: int, samples: int, claim: tuple[int, int] = (260, 260)) -> bytes:
    """Return a PNG of 16 bits a sample, every sample 40000, 260 pixels square, with the size that its header claims."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + struct.pack(">H", 40000) * samples * 260) * 260
    header = struct.pack(">IIBBBBB", *claim, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def animation(format: str) -> bytes:
    later = [Image.new("RGB", (300, 280), color) for color in ("red", "green")]
    return encode(photo(300, 280), format, save_all=True, append_images=later)


KINDS: dict[str, tuple[Callable[[], bytes], Callable[[], Image.Image], float]] = {
    "JPEG": (lambda: encode(photo(300, 280), "JPEG", quality=95), lambda: photo(300, 280), 2),
    "progressive JPEG": (lambda: encode(photo(300, 280), "JPEG", progressive=True), lambda: photo(300, 280), 3),
    "CMYK JPEG": (
        lambda: encode(photo(300, 280).convert("CMYK"), "JPEG", quality=95),
        lambda: photo(300, 280).convert("CMYK").convert("RGB"),
        2,
    ),
    "grey JPEG": (lambda: encode(gradient(), "JPEG", quality=95), gradient, 1),
    "PNG": (lambda: encode(photo(300, 280), "PNG"), lambda: photo(300, 280), 1),
    "grey PNG": (lambda: encode(gradient(), "PNG"), gradient, 1),
    "1-bit PNG": (lambda: encode(gradient().convert("1"), "PNG"), lambda: gradient().convert("1"), 1),
    "palette PNG": (lambda: encode(photo(300, 280).quantize(), "PNG"), lambda: photo(300, 280).quantize(), 1),
    "RGBA PNG": (lambda: encode(half_transparent("RGBA"), "PNG"), on_white, 1),
    "RGBA WebP": (lambda: encode(half_transparent("RGBA"), "WEBP", lossless=True), on_white, 1),
    "transparent GIF": (lambda: encode(half_transparent("RGBA"), "GIF"), on_white, 1),
    "16-bit grey PNG": (lambda: deep_png(0, 1), lambda: Image.new("L", (260, 260), 156), 1),
    "16-bit RGB PNG": (lambda: deep_png(2, 3), lambda: Image.new("L", (260, 260), 156), 1),
    "16-bit grey and alpha PNG": (lambda: deep_png(4, 2), lambda: Image.new("L", (260, 260), 195), 2),
    "WebP": (lambda: encode(photo(300, 280), "WEBP", quality=95), lambda: photo(300, 280), 3),
    "BMP": (lambda: encode(photo(300, 280), "BMP"), lambda: photo(300, 280), 1),
    "first frame of a GIF": (lambda: animation("GIF"), lambda: photo(300, 280), 10),
    "first frame of a WebP": (lambda: animation("WEBP"), lambda: photo(300, 280), 4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(module: Any, kind: str) -> None:
    """Every kind of picture becomes RGB; what is transparent becomes white; 16 bits are scaled and not clipped."""
    data, expected, tolerance = KINDS[kind]
    off = difference(blurred(module.pixels("x", data())), blurred(reference(expected())))
    assert off < tolerance


def bomb_gif() -> bytes:
    """Return a GIF whose screen is small and whose first frame says it is 65535 x 65535."""
    data = bytearray(encode(Image.new("L", (8, 8)), "GIF"))
    frame = data.index(b"\x2c")
    data[frame + 5 : frame + 9] = struct.pack("<HH", 65535, 65535)
    return bytes(data)


def patched(format: str, offset: int, size: bytes) -> bytes:
    data = bytearray(encode(Image.new("RGB", (64, 64)), format))
    data[offset : offset + len(size)] = size
    return bytes(data)


def bomb_jpeg() -> bytes:
    data = bytearray(encode(Image.new("RGB", (64, 64)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(data)


BOMBS = {
    "PNG": lambda: deep_png(2, 3, claim=(30000, 30000)),
    "PNG, just above the limit": lambda: deep_png(2, 3, claim=(50_000_001, 1)),
    "GIF": lambda: patched("GIF", 6, struct.pack("<HH", 65535, 65535)),
    "GIF frame": bomb_gif,
    "BMP": lambda: patched("BMP", 18, struct.pack("<II", 50000, 50000)),
    "JPEG": bomb_jpeg,
    "WebP": lambda: patched("WEBP", 26, struct.pack("<HH", 16383, 16383)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_decompression_bombs(module: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A picture that claims to be enormous is refused by its header: nothing of it is decoded."""
    data = BOMBS[kind]()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(HTTPException, match=r"^400: x: \d+ x \d+ pixels, the limit is 50 million$"):
        module.pixels("x", data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_broken_pictures(module: Any, format: str) -> None:
    """However its bytes are cut or spoiled, a picture is either seen or refused; nothing else happens."""
    data = encode(photo(200, 180), format)
    chance = random.Random(3)
    outcomes = []
    for _ in range(60):
        spoiled = bytearray(data[: chance.randrange(1, len(data))] if chance.random() < 0.5 else data)
        for _ in range(chance.randrange(4)):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        outcomes.append(outcome(module, bytes(spoiled)))
    assert all(each == "seen" or each.startswith("400: x: ") for each in outcomes)
    assert sum(each != "seen" for each in outcomes) > 10


def outcome(module: Any, data: bytes) -> str:
    try:
        module.pixels("x", data)
    except HTTPException as refused:
        return str(refused)
    return "seen"


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(451, 300), (100, 90), (1601, 1203), (4000, 3000), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_has_the_pixels_that_pillow_sees(
    module: Any, size: tuple[int, int], subsampling: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faster decoder is as good, at every size at which it decodes."""
    data = encode(photo(*size).convert(mode), "JPEG", quality=90, subsampling=subsampling)
    decoded = []
    decode = module.square_jpeg
    monkeypatch.setattr(module, "square_jpeg", lambda *given: decoded.append(decode(*given)) or decoded[-1])
    fast = module.pixels("x", data)
    assert len(decoded) == 1
    for quick in ("small_jpeg", "is_plain_jpeg"):
        monkeypatch.setattr(module, quick, lambda _: None)
    np.testing.assert_array_equal(fast, module.pixels("x", data))


def test_a_slightly_broken_jpeg_is_seen(module: Any) -> None:
    """One with a few bytes too many after its pixels; Pillow passes over them."""
    data = encode(photo(451, 300), "JPEG")
    np.testing.assert_array_equal(module.pixels("x", data[:-2] + bytes(9) + data[-2:]), module.pixels("x", data))


def test_a_jpeg_of_two_sizes(module: Any) -> None:
    """Whoever decodes, it is never at a size that nobody has looked at."""
    small, large = (encode(photo(*size), "JPEG") for size in ((60, 60), (6000, 6000)))
    start = large.index(b"\xff\xc0")
    frame = large[start : start + 2 + int.from_bytes(large[start + 2 : start + 4])]
    at = small.index(b"\xff\xc0")
    for spoiled in (small[:at] + frame + small[at:], small[:2] + frame + small[2:]):
        assert outcome(module, spoiled).startswith("400: x: ")


def test_truncated_jpeg(module: Any) -> None:
    """A JPEG that stops half way is refused, and not completed with grey."""
    data = encode(photo(451, 300), "JPEG")
    with pytest.raises(HTTPException, match=r"x: broken picture \(image file is truncated"):
        module.pixels("x", data[: len(data) // 2])


@pytest.mark.parametrize("format", ["TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(module: Any, format: str) -> None:
    """Only the formats that are named are decoded: each other one is attack surface."""
    with pytest.raises(HTTPException, match="not a picture in JPEG, PNG, WEBP, BMP or GIF format"):
        module.pixels("x", encode(photo(64, 64), format))
