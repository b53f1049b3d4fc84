"""Image files of a dataset: whether they can be decoded, and agree with the annotations."""

from __future__ import annotations

import os
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmkd.datasets._failure import Failure
from mmkd.datasets._files import shown

SECONDS = 0.4  # for opening files
AT_LEAST = 16  # files opened, whatever the time
LONG = 20  # times as long as wide: resized, little of it is left, or it becomes huge
ORIENTATION = 274  # the EXIF tag
ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}  # of complete files

TURNED = 'carry an EXIF orientation and load as turned, which their annotations are not'
UNTURNED = 'carry an EXIF orientation that color_type leaves aside, but annotations follow'
OTHER_SIZE = 'have another size than in the annotations, so boxes lie elsewhere'
OTHER_LABEL = 'have a label image of another size'
LONG_SHAPE = f'are more than {LONG} times as long as wide'
DEEP = 'have 16 bits a channel, of which loading keeps the upper 8'
FRAMES = 'have several frames, of which loading takes the first'
HUGE = 'are too large to be opened without harm'


@dataclass
class Header:
    """The header of an image file: format, size (width, height), EXIF orientation."""

    kind: tuple[str, str]
    size: tuple[int, int]
    turned: bool = False
    complete: bool = True
    frames: bool = False
    huge: bool = False


@dataclass
class Pictures:
    """Checks image files until the time is over.

    Attributes:
        loader: The step that loads an image, or None if that is not a plain file.
        opened: Files that were opened.
        broken: Those that cannot be decoded, and why.
        found: Complaint -> the images it is about.
        channels: Number of channels as loaded -> the first image with it.
        longest: Ratio and position of the image of the most extreme shape.
    """

    loader: LoadImageFromFile | None
    opened: int = 0
    broken: list[str] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    channels: dict[int, str] = field(default_factory=dict)
    longest: tuple[float, int] = (0.0, 0)
    seconds: float = 0.0
    kinds: set[tuple[str, str]] = field(default_factory=set)

    def look(self, info: dict, index: int) -> None:
        """Look at the file of an image, which exists, if there is time left."""
        if self.loader is None or (self.opened >= AT_LEAST and self.seconds > SECONDS):
            if info.get('width') and info.get('height'):
                self._shape(info, index, (info['width'], info['height']))
            return
        start = time.monotonic()
        self.opened += 1
        header = read_header(info['img_path'])
        if self._decodes(info['img_path'], header) and header is not None:
            self._compare(info, index, header)
        self.seconds += time.monotonic() - start

    def _decodes(self, path: str, header: Header | None) -> bool:
        """Decode files that look damaged, and the first image of each kind."""
        if header is not None:
            if header.huge:
                self.found[HUGE].append(path)
                return False
            if header.complete and header.kind in self.kinds:
                return True
            self.kinds.add(header.kind)
        failure = None
        try:
            loaded = self.loader(dict(img_path=path))
        except ImportError:
            raise
        except Exception as error:
            failure = Failure(path, 'image', error)
        else:
            failure = Failure(path, 'image', None) if loaded is None else None
        if failure is not None:
            self.broken.append(f'{path} ({failure.reason})')
            return False
        shape = loaded['img'].shape
        self.channels.setdefault(shape[2] if len(shape) > 2 else 1, path)
        return True

    def _compare(self, info: dict, index: int, header: Header) -> None:
        """Enter disagreements with the annotations."""
        color = str(getattr(self.loader, 'color_type', 'color'))
        # OpenCV and Pillow turn pictures in these two modes only, other decoders never.
        decoder = getattr(self.loader, 'imdecode_backend', 'cv2')
        turns = color in ('color', 'grayscale') and decoder in ('cv2', 'pillow') and header.turned
        size = header.size[::-1] if turns else header.size
        keys = zip(('width', 'height'), size, strict=True)
        said = tuple(own if info.get(key) is None else info[key] for key, own in keys)
        path = info['img_path']
        if size != said:
            sizes = f'{path} (loads as {size[0]} x {size[1]}, annotations {said[0]} x {said[1]})'
            swapped = header.turned and size[::-1] == said
            complaint = (TURNED if turns else UNTURNED) if swapped else OTHER_SIZE
            self.found[complaint].append(sizes)
        label = info.get('seg_map_path')
        other = read_header(label) if label and os.path.isfile(label) else None
        if other is not None and other.size != size:
            sizes = f'image {size[0]} x {size[1]}, label {other.size[0]} x {other.size[1]}'
            self.found[OTHER_LABEL].append(f'{path} ({sizes})')
        if header.kind[1].endswith('16') and color != 'unchanged':
            self.found[DEEP].append(path)
        if header.frames:
            self.found[FRAMES].append(path)
        self._shape(info, index, size)

    def _shape(self, info: dict, index: int, size: tuple[int, int]) -> None:
        ratio = max(size) / min(size) if min(size) > 0 else 0.0
        self.longest = max(self.longest, (ratio, index))
        if ratio > LONG:
            self.found[LONG_SHAPE].append(f'{info["img_path"]} ({size[0]} x {size[1]})')

    def notes(self) -> list[str]:
        """Complaints, a sentence each."""
        notes = [f'{len(one)} image(s) {why}: {shown(one, 3)}' for why, one in self.found.items()]
        if len(self.channels) > 1:
            each = shown(f'{count} ({path})' for count, path in sorted(self.channels.items()))
            notes.append(
                f"images load with different numbers of channels, {each}: set color_type='color'"
            )
        return notes


def file_loader(dataset: Any) -> LoadImageFromFile | None:
    """The step of a dataset's pipeline that loads an image from a file, or None."""
    steps = [getattr(one, 'load', one) for one in getattr(dataset.pipeline, 'transforms', ())]
    found = (one for one in steps if isinstance(one, LoadImageFromFile))
    return next((one for one in found if 'NDArray' not in type(one).__name__), None)


def read_header(path: str) -> Header | None:
    """The header as read by Pillow; None for unknown formats."""
    with open(path, 'rb') as stream, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(stream) as image:
                return _header(image, stream)
        except Image.DecompressionBombError:
            return Header(('', ''), (0, 0), huge=True)
        except Exception:
            return None


def _header(image: Image.Image, stream: Any) -> Header:
    # Pillow would decode a PNG as a whole to look for EXIF data at its end.
    has_exif = image.format != 'PNG' or 'exif' in image.info
    orientation = image.getexif().get(ORIENTATION, 1) if has_exif else 1
    frames = image.format in ('GIF', 'TIFF', 'WEBP') and getattr(image, 'is_animated', False)
    mode = image.mode
    if image.format == 'PNG':
        stream.seek(24)
        deep = stream.read(1) == b'\x10'
        mode = f'{mode};16' if deep and not mode.endswith('16') else mode
    stream.seek(-min(64, os.fstat(stream.fileno()).st_size), os.SEEK_END)
    complete = ENDS.get(image.format, b'') in stream.read()
    return Header(
        (image.format, mode), image.size, orientation in (5, 6, 7, 8), complete, bool(frames)
    )
