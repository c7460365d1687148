"""Decode and resize: the one code path of training and serving.

Both sides turn an encoded image or an array into the same ``uint8 [height, width, 3]``, by the
same :class:`ImageSpec`, which travels in the artifact.
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lloss.errors import ImageError, SettingsError

Pixels: TypeAlias = NDArray[np.uint8]
"""``uint8 [height, width, 3]``, RGB."""

Raw: TypeAlias = bytes | NDArray[Any]
"""What a pool hands over: a file's bytes, or an array ``uint8 [H, W]`` or ``[H, W, 3]``."""

Fit = Literal["crop", "pad", "stretch"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The only decoders ever tried: an explicit list keeps obscure parsers out of reach."""

MAX_PIXELS = 178_956_970
"""Images that declare more are refused before they are decoded (Pillow's own bomb limit)."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How any image becomes the model's input.

    Attributes:
        height: of the model's input, in pixels.
        width: of the model's input, in pixels.
        fit: ``crop`` scales until the input is covered and cuts the middle out; ``pad`` scales
            until the image fits and fills with black; ``stretch`` ignores the aspect ratio.

    Scaling is Pillow's antialiased bilinear filter. An image that has the input's size already is
    never resampled.
    """

    height: int
    width: int
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 8192 and 1 <= self.width <= 8192):
            raise SettingsError(
                f"an input of {self.height}×{self.width} pixels: give 1 to 8192 each way"
            )
        if self.fit not in get_args(Fit):
            raise SettingsError(f"fit {self.fit!r}: choose one of {', '.join(get_args(Fit))}")

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ImageSpec:
        """The reverse of :meth:`as_dict`."""
        return cls(int(fields["height"]), int(fields["width"]), fields["fit"])


_HEADER = threading.Lock()
"""Held while a header is read: ``warnings.catch_warnings`` is process-wide."""


def decode(raw: Raw, spec: ImageSpec) -> Pixels:
    """Turn one encoded image or array into the model's input.

    Args:
        raw: the bytes of an image file, or an array ``uint8 [H, W]``, ``[H, W, 1]`` or
            ``[H, W, 3]``.
        spec: the size and the rule to reach it.

    Returns:
        ``uint8 [spec.height, spec.width, 3]``, RGB, upright by its EXIF orientation. Grey becomes
        RGB, 16 bits become their upper 8, transparency is dropped, an animation gives its first
        frame.

    Raises:
        ImageError: the image cannot be decoded, or is of a kind that cannot be resized.
    """
    if isinstance(raw, np.ndarray):
        pixels = _rgb_array(raw)
        if pixels.shape[:2] == (spec.height, spec.width):
            return pixels
        return np.asarray(_fitted(Image.fromarray(pixels), spec))
    return np.asarray(_fitted(_opened(raw), spec))


def _rgb_array(array: NDArray[Any]) -> Pixels:
    if array.dtype != np.uint8:
        raise ImageError(f"an array of {array.dtype}: images are uint8, 0 to 255")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ImageError(f"an array of shape {list(array.shape)}: images are [H, W] or [H, W, 3]")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)


def _opened(raw: bytes) -> Image.Image:
    if not raw:
        raise ImageError("an empty file")
    try:
        with _HEADER, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit below is the stricter judge
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"declares {image.width}×{image.height} pixels, over the limit of {MAX_PIXELS}"
            )
        image.load()
        return _rgb_image(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"declares more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise ImageError(f"cannot be decoded: {error or type(error).__name__}") from error


def _rgb_image(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        upper = np.asarray(image).astype(np.uint16) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    elif image.mode in ("I", "F"):
        # 32-bit files in practice hold 16-bit values (Pillow reads some 16-bit PNG so).
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray((values.clip(0, 65535) / 256).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _fitted(image: Image.Image, spec: ImageSpec) -> Image.Image:
    width, height = image.size
    target = (spec.width, spec.height)
    if image.size == target:
        return image
    if spec.fit == "stretch":
        return image.resize(target, Image.Resampling.BILINEAR)
    if spec.fit == "crop":
        scale = min(width / spec.width, height / spec.height)
        left, top = (width - spec.width * scale) / 2, (height - spec.height * scale) / 2
        box = (left, top, left + spec.width * scale, top + spec.height * scale)
        clipped = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
        return image.resize(target, Image.Resampling.BILINEAR, box=clipped)
    scale = max(width / spec.width, height / spec.height)
    inner = (max(1, round(width / scale)), max(1, round(height / scale)))
    canvas = Image.new("RGB", target)
    corner = ((spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2)
    canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), corner)
    return canvas
