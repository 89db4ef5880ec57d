"""Pictures between formats: PNG and JPEG bytes, sizes, pixels. No format here is ever run, only decoded, and only up to a size."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 64 * 1024**2
JPEG_QUALITY = 95
_FORMATS = ("PNG", "JPEG")


class PictureError(ValueError):
    """Bytes that are no PNG or JPEG picture, or one that is too large. The caller says where they are from."""


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise PictureError("no PNG or JPEG picture") from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"a picture of {image.width}x{image.height} pixels is too large")
    return image


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) of PNG or JPEG bytes, from their header. Raises `PictureError`."""
    image = _open(data)
    return image.height, image.width


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG picture does."""
    return data[:3] == b"\xff\xd8\xff"


def decode(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB of PNG or JPEG bytes. Raises `PictureError`, also for a picture that is cut off."""
    image = _open(data)
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"a damaged picture: {error}") from error


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of (H, W, 3) uint8 RGB; exact."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """JPEG bytes of (H, W, 3) uint8 RGB, quality 95."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
