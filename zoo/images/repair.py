"""Files whose pixels are whole and whose metadata is not: what is damaged, or not needed, is cut out before decoding.

Cameras, editors and generators write comments, thumbnails, positions and whole workflows beside the pixels. Viewers
pass over what they cannot read of these; Pillow gives the picture up.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

# Orientation and colour; everything that pixels need is critical (its name begins with a capital) except tRNS.
_PNG_KEPT = (b"tRNS", b"iCCP", b"eXIf")
_JPEG_KEPT = (b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"Adobe")
# Descriptions, dates, resolutions and pointers to more of them, none of which decoding needs.
_TIFF_CUT = {269, 270, 271, 272, 282, 283, 285, 286, 287, 296, 297, 301, 305, 306, 315, 316, 321, 700, 33432, 33723}
_TIFF_CUT |= {34377, 34665, 34853, 37724}


def without_metadata(data: bytes) -> bytes | None:
    """Return a PNG or JPEG with nothing but pixels, orientation and profile, or None where there is nothing to cut."""
    try:
        if data.startswith(b"\x89PNG"):
            lean = data[:8] + b"".join(_png_chunks(data))
        elif data.startswith(b"\xff\xd8"):
            lean = data[:2] + b"".join(_jpeg_segments(data))
        else:
            return None
    except (struct.error, IndexError):  # it ends where a length should stand
        return None
    return lean if len(lean) < len(data) else None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunk = data[at : at + 12 + length]
        name = chunk[4:8]
        critical = name[:1].isupper()
        if critical or (name in _PNG_KEPT and zlib.crc32(chunk[4:-4]) == struct.unpack(">I", chunk[-4:])[0]):
            yield chunk
        if name == b"IEND":
            return
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    at = 2
    while data[at] == 0xFF and data[at + 1] != 0xDA:  # up to the start of the first scan
        (length,) = struct.unpack_from(">H", data, at + 2)
        segment, marker = data[at : at + 2 + length], data[at + 1]
        application = 0xE0 <= marker <= 0xEF or marker == 0xFE  # or a comment
        if not application or (len(segment) >= 16 and segment[4:].startswith(_JPEG_KEPT)):
            yield segment
        at += 2 + length
    yield data[at:]


def without_tiff_metadata(data: bytes) -> bytes:
    """Return a TIFF whose first directory lacks what decoding does not need, and has no second; others as they are.

    Always, not only after a failure: the C library that undoes compression writes to standard error of its own accord.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return data
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
        kept = [entry for entry in entries if struct.unpack_from(order + "H", entry)[0] not in _TIFF_CUT]
    except struct.error:
        return data
    lean = bytearray(data)
    table = struct.pack(order + "H", len(kept)) + b"".join(kept) + b"\0\0\0\0"
    lean[start : start + len(table)] = table
    return bytes(lean)
