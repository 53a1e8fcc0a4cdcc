"""Images: reading, writing and resizing with one colour and range convention.

Everywhere in the zoo an image is a float32 tensor (B, 3, H, W), RGB, sRGB-encoded, in [0, 1]. This module is the only
door between that and files:

    read    file, bytes or stream -> Image     orientation applied, embedded profile converted to sRGB
    resize  tensor -> tensor                   antialiased bicubic, the only resampling in the zoo
    write   tensor -> file                     rounded to 8 bits, atomic; ``encode`` gives the bytes alone

Transparency. A method sees the picture composited over white (in the encoded values, as browsers do); the alpha channel
is kept beside it in ``Image.alpha`` and ``write`` puts it back where the format can hold it.

Colour profiles. An embedded ICC profile is converted by LittleCMS (relative colorimetric, black point compensation). A
profile that moves no colour by more than one 8-bit level is sRGB up to rounding and the pixels stay as they are; a
damaged profile, or one for another kind of pixels than the file holds, is ignored, as viewers do. Without a profile,
RGB and grey are taken as sRGB, and CMYK by the plain ink formula.

Depth. 16-bit grey (PNG, TIFF), 16-bit RGB TIFF and floating-point TIFF keep their precision, except that a conversion
of RGB by an ICC profile works on 8 bits. 16-bit RGB PNG, and TIFF compressed in a way that only Pillow can undo, are
read with 8 bits per channel.

Sizes are (height, width), except where people write them: ``"exact:640x480"`` is width x height, as on a screen.
"""

from zoo.images.builtin import BUILTIN_PREFIX, BuiltinImage, builtin, builtin_contents, builtin_styles
from zoo.images.folders import READ_EXTENSIONS, list_images, walk
from zoo.images.labels import fitted_labels, label_colors, paired_labels
from zoo.images.masks import fitted, same_shape, selection
from zoo.images.read import Image, read, read_array
from zoo.images.resample import resize
from zoo.images.sheet import contact_sheet, sheet_cell
from zoo.images.sizes import MAX_PIXELS, MAX_SIDE, SizePolicy
from zoo.images.write import WRITE_FORMATS, check_writable, encode, write

__all__ = [
    "BUILTIN_PREFIX",
    "MAX_PIXELS",
    "MAX_SIDE",
    "READ_EXTENSIONS",
    "WRITE_FORMATS",
    "BuiltinImage",
    "Image",
    "SizePolicy",
    "builtin",
    "builtin_contents",
    "builtin_styles",
    "check_writable",
    "contact_sheet",
    "encode",
    "fitted",
    "fitted_labels",
    "label_colors",
    "list_images",
    "paired_labels",
    "read",
    "read_array",
    "resize",
    "same_shape",
    "selection",
    "sheet_cell",
    "walk",
    "write",
]
