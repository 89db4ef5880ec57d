"""Pictures for the policy: made at the source, of the very frame that people see, small and uncompressed.

The middle square of the frame, every pixel the mean of the ones it covers; a frame that is smaller than that is enlarged. What the
policy is shown is what is recorded and learned from, byte for byte.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from takeover.data.schema import PolicyImage
from takeover.robot_bridge.robots.base import Picture

SIZE = 128  # pixels each way


def policy_image(picture: Picture, size: int = SIZE) -> PolicyImage:
    """``picture`` (H, W, 3) uint8 as (size, size, 3)."""
    height, width = picture.rgb.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    how = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    small = Image.fromarray(picture.rgb).resize((size, size), how, box=(left, top, left + side, top + side))
    return PolicyImage(camera=picture.camera, height=size, width=size, data=np.asarray(small).tobytes())


def policy_images(pictures: Sequence[Picture], cameras: Sequence[str]) -> list[PolicyImage]:
    """Those of ``cameras``, in this order; a camera that gave no picture is left out, never replaced by another."""
    found = {picture.camera: picture for picture in pictures}
    return [policy_image(found[camera]) for camera in cameras if camera in found]
