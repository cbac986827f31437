"""Which files are images: by what they are called, and by how they begin."""

import importlib.util
import re
from functools import cache
from pathlib import Path

from PIL import Image, features

HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
"""Whether the package pillow-heif is installed, which teaches Pillow to read HEIC."""

if HAS_HEIF:
    importlib.import_module("pillow_heif").register_heif_opener()

FORMATS = (
    "JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF",
    *(("AVIF",) if features.check("avif") else ()), *(("HEIF",) if HAS_HEIF else ()),
)  # fmt: skip
"""What a file may be, whatever it is called. Pillow knows more, some of which start other programs (EPS, WMF)."""

HEIC = "HEIC can be read once pillow-heif is installed: pip install pillow-heif"
AVIF = "this Pillow was built without AVIF: pip install --upgrade pillow"
CONVERT = "convert it to PNG, JPEG or TIFF"

RAW = (".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw")
OTHERS = {
    ".bpg": "BPG", ".cur": "CUR", ".dcm": "DICOM", ".dds": "DDS", ".dicom": "DICOM", ".emf": "EMF", ".eps": "EPS",
    ".exr": "OpenEXR", ".fit": "FITS", ".fits": "FITS", ".hdr": "Radiance HDR", ".icns": "ICNS", ".ico": "ICO",
    ".j2c": "JPEG 2000", ".j2k": "JPEG 2000", ".jls": "JPEG-LS", ".jp2": "JPEG 2000", ".jpc": "JPEG 2000",
    ".jpf": "JPEG 2000", ".jpx": "JPEG 2000", ".jxl": "JPEG XL", ".jxr": "JPEG XR", ".pcx": "PCX",
    ".psb": "Photoshop's format", ".psd": "Photoshop's format", ".qoi": "QOI", ".sgi": "SGI", ".svg": "SVG",
    ".svgz": "SVG", ".tga": "TGA", ".wdp": "JPEG XR", ".wmf": "WMF", ".xbm": "XBM", ".xcf": "GIMP's format",
    ".xpm": "XPM",
}  # fmt: skip

UNREADABLE = {
    **dict.fromkeys((".heic", ".heif", ".heics", ".heifs", ".hif"), HEIC),
    **dict.fromkeys((".avif", ".avifs"), AVIF),
    **dict.fromkeys(RAW, f"a camera's raw file; {CONVERT}"),
    **{suffix: f"{kind} is not among the formats that are read; {CONVERT}" for suffix, kind in OTHERS.items()},
}
"""Ending of an image file that cannot be read -> why, and what to do about it."""

MAGIC = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"), "TIFF"),
    (re.compile(rb"BM....\0\0\0\0", re.DOTALL), "BMP"),
    (re.compile(rb"P[1-6]\s+[\d#]"), "PPM"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIF"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"8BPS"), "Photoshop's format"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
)
"""(first bytes, format): how files begin, by each format's specification."""

MAGIC_BYTES = 16


@cache
def image_suffixes() -> frozenset[str]:
    """Image formats that are read, by their endings in small letters: those that Pillow knows for each, and two more.

    A .dib may be a BMP, and an .mpo is a JPEG with a second picture after it.
    """
    endings = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    return frozenset(endings | {".dib", ".mpo"})


def ending(name: str) -> str:
    """The image format that a file's name tells: its ending as written, such as `.JPG`; "" where it has none."""
    found = re.search(r"(?<=[^.])\.[A-Za-z][A-Za-z0-9]{0,9}$", name)
    return found[0] if found else ""


def is_image_name(name: str) -> bool:
    """Whether a file's name tells an image format, one that is read or not."""
    suffix = ending(name).lower()
    return suffix in UNREADABLE or suffix in image_suffixes()


def may_be_image(name: str) -> bool:
    """Whether a file may be of an image format: it is called like one, or has no ending. `a.jpg~` is a backup."""
    return is_image_name(name) or not (ending(name) or name.endswith("~"))


def kind_inside(path: Path) -> str:
    """The image format of a file by its first bytes; "" where it is not a known one.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return kind_of(file.read(MAGIC_BYTES))


def kind_of(head: bytes) -> str:
    """The image format by the first bytes of a file, `MAGIC_BYTES` of them; "" where it is not a known one."""
    return next((kind for pattern, kind in MAGIC if pattern.match(head)), "")


def why_not(path: Path) -> str:
    """Why the image format that a file's name tells cannot be read, and the remedy; "" where it has to be tried.

    The content is not asked: many raw files are TIFFs, of which Pillow would read the thumbnail.
    """
    suffix = path.suffix.lower()
    return "" if suffix in image_suffixes() else UNREADABLE.get(suffix, "")


def why_unknown(head: bytes) -> str:
    """What to say of an image format that Pillow does not identify, by the first bytes of the file."""
    kind = kind_of(head)
    if kind in FORMATS:
        return f"a {kind} of a kind that Pillow cannot read, or broken; save it as PNG with 8 or 16 bits"
    if kind:
        remedy = {"HEIF": HEIC, "AVIF": AVIF}.get(kind, CONVERT)
        return f"{kind} by its content, whatever its name says; {remedy}"
    return "not an image that Pillow knows"
