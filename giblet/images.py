"""NIfTI images: opened and read, with every fault said in a sentence that names the file."""

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

ROUNDING = 1e-6  # of the largest value: scaled integers hold 0 and 1 only so exactly
VOXEL_MM = (0.01, 100)  # sizes outside these are not in millimetres
DEFLATE = 1032  # gzip never packs more bytes into one
POINTERS = (b"annex/objects/", b"version https://git-lfs")


def load_image(path: str | Path) -> nib.Nifti1Pair:
    """Open a NIfTI file and check all that its header says; no values are read.

    Raises
    ------
    FileNotFoundError
        Where there is no file.
    ValueError
        Where it is no NIfTI, is cut, has no orientation, or holds complex or RGB values.
    """
    path = Path(path)
    _check_content(path)
    try:
        image = nib.load(path)
    except Exception as error:  # nibabel raises what a damaged header happens to lead to
        raise ValueError(
            f"{path} cannot be read as NIfTI ({error}): copy it again, or convert it."
        ) from None
    if not isinstance(image, nib.Nifti1Pair):
        raise ValueError(
            f"{path} is a {type(image).__name__}, expected a NIfTI volume: convert it, for "
            "instance with nibabel or `wb_command`."
        )
    check_image(image, path)
    _check_size(image, path)
    return image


def load_series(path: str | Path) -> nib.Nifti1Pair:
    """Open one subject's 4-D series, to be read through one handle.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_image`, and where it is not 4-D.
    """
    image = load_image(path)
    if image.ndim != 4:
        raise ValueError(
            f"{path} has shape {image.shape}, expected 4-D, with TRs last: give the whole series."
        )
    return type(image).from_filename(path, keep_file_open=True)


def stated_tr(image) -> float | None:
    """Seconds from TR to TR that a header states; None where it states none.

    None is 0, and 1 without a unit, which is what is there where nobody has set it.
    """
    seconds = float(image.header.get_zooms()[3])
    try:
        unit = image.header.get_xyzt_units()[1]
    except (AttributeError, KeyError):
        unit = "unknown"
    if seconds <= 0 or (seconds == 1 and unit == "unknown"):
        return None
    return seconds * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def load_mask(path: str | Path) -> nib.Nifti1Image:
    """Read a mask file as an image of 0 and 1, uint8; errors as `load_image`, `mask_voxels`."""
    image = load_image(path)
    return nib.Nifti1Image(mask_voxels(image, path).astype(np.uint8), image.affine)


def mask_voxels(mask_img, name: str | Path = "mask_img") -> np.ndarray:
    """Voxels that a mask holds: (x, y, z) bool.

    Parameters
    ----------
    mask_img : image
        3-D, or 4-D of one volume. 0 or NaN outside, one other value inside.
    name : file or argument, for errors

    Raises
    ------
    ValueError
        Where the mask is empty or has several values, as a probability map or label image has.
    """
    check_image(mask_img, name)
    values = read_volume(mask_img, name)
    values = np.where(np.isnan(values), 0, values)
    largest = float(np.abs(values).max())
    if not 0 < largest < math.inf:
        raise ValueError(
            f"{name} is 0 everywhere or infinite somewhere, expected 0 and one other value: give "
            "another mask."
        )
    inside = np.abs(values) > ROUNDING * largest
    found = values[inside]
    if not float(found.max()) - float(found.min()) <= ROUNDING * largest:
        raise ValueError(
            f"{name} has {len(np.unique(found))} values besides 0, from {found.min():g} to "
            f"{found.max():g}, expected one: make a mask of it, for instance by a threshold."
        )
    return inside


def read_volume(image, name: str | Path) -> np.ndarray:
    """Values of a 3-D image, or of a 4-D one of one volume: (x, y, z).

    Raises
    ------
    ValueError
        Where the image has another shape, or its file is damaged.
    """
    if image.ndim != 3 and image.shape[3:] != (1,):
        raise ValueError(f"{name} has shape {image.shape}, expected 3-D: give one volume.")
    return read_values(image, name).reshape(image.shape[:3])


def read_values(image, name: str | Path, trs: slice | None = None) -> np.ndarray:
    """Values of an image, or of some TRs of a series, in the data type of the file.

    Raises
    ------
    ValueError
        Where the file is damaged.
    """
    try:
        return np.asarray(image.dataobj if trs is None else image.dataobj[..., trs])
    except Exception as error:  # of the decompressor, the system, or nibabel
        place = "" if trs is None else f" after TR {trs.start}"
        raise ValueError(f"{name} is damaged{place} ({error}): copy it again.") from None


def check_end(image: nib.Nifti1Pair, path: str | Path) -> None:
    """Refuse a gzip whose checksum, behind the values that were read last, is wrong.

    Raises
    ------
    ValueError
        Naming the file.
    """
    if not str(path).lower().endswith(".gz"):
        return
    stored: Any = image.dataobj
    try:
        with stored._get_fileobj() as file:  # nibabel itself stops at the last value
            while file.read(2**20):
                pass
    except Exception as error:  # of the decompressor
        if "CRC" in str(error) or "length" in str(error):
            raise ValueError(f"{path} is damaged ({error}): copy it again.") from None


def check_image(image, name: str | Path) -> None:
    """Refuse an image that has no voxels, no real numbers, or no place in space.

    Raises
    ------
    ValueError
        Naming `name`, the file or argument.
    """
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise ValueError(
            f"{name} is a {type(image).__name__}, expected a nibabel image: open it with "
            "`nibabel.load`."
        )
    if len(image.shape) < 3 or min(image.shape) < 1:
        raise ValueError(
            f"{name} has shape {image.shape}, expected voxels along three axes, and TRs along a "
            "fourth: make it again."
        )
    dtype = image.get_data_dtype()
    if dtype.kind not in "fiub":
        kind = "RGB" if dtype.kind == "V" else str(dtype)
        raise ValueError(
            f"{name} holds {kind} values, expected real numbers: convert it, for instance to "
            "magnitude."
        )
    header = image.header
    is_placed = image.affine is not None
    if isinstance(header, nib.Nifti1Header):
        is_placed &= bool(header["sform_code"] or header["qform_code"])
    if not is_placed:
        raise ValueError(
            f"{name} has no orientation (sform_code and qform_code are 0), so nothing says where "
            "its voxels lie: write its affine into the header."
        )
    _check_affine(image.affine, name)


def _check_affine(affine: np.ndarray, name: str | Path) -> None:
    axes = np.asarray(affine, np.float64)[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    volume = abs(np.linalg.det(axes)) if np.isfinite(affine).all() else 0
    if not volume > ROUNDING * sizes.prod():
        raise ValueError(
            f"{name} has the affine {affine.tolist()}, expected one that can be inverted: write "
            "the right one into the header."
        )
    if sizes.min() < VOXEL_MM[0] or sizes.max() > VOXEL_MM[1]:
        raise ValueError(
            f"{name} has voxels of {' x '.join(f'{size:g}' for size in sizes)} mm, expected "
            f"{VOXEL_MM[0]} to {VOXEL_MM[1]} mm: write its affine in millimetres."
        )


def _check_content(path: Path) -> None:
    """Refuse what is no whole file of images, by its kind and its first bytes."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path} is a link to {path.readlink()}, which is missing: fetch it, for instance with "
            "`datalad get`."
        )
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, expected a NIfTI file: mend its name.")
    if not path.is_file():
        raise ValueError(f"{path} is a folder or device, expected a NIfTI file: mend its name.")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): mend its access.") from None
    if not start:
        raise ValueError(f"{path} is empty, expected a NIfTI file: copy it again.")
    if any(pointer in start for pointer in POINTERS):
        raise ValueError(
            f"{path} is a pointer of git-annex or Git LFS, expected the file itself: fetch it, for "
            "instance with `datalad get`."
        )
    is_gzip = start.startswith(b"\x1f\x8b")
    name = path.name.lower()
    if name.endswith(".nii") and is_gzip:
        raise ValueError(f"{path} is compressed by gzip: rename it to {path.name}.gz.")
    if name.endswith(".gz") and not is_gzip:
        what = "a web page or XML" if start.lstrip().startswith(b"<") else "not compressed by gzip"
        raise ValueError(
            f"{path} cannot be read as NIfTI, it is {what}: fetch it again, or rename it if only "
            "its ending is wrong."
        )


def _check_size(image: nib.Nifti1Pair, path: Path) -> None:
    """Refuse a file that cannot hold as many values as its header says."""
    file = Path(str(image.file_map["image"].filename))
    if not file.is_file():
        raise FileNotFoundError(f"{path} belongs to {file}, which is missing: copy both.")
    most = {".gz": DEFLATE, ".bz2": math.inf, ".zst": math.inf}.get(file.suffix.lower(), 1)
    size = file.stat().st_size
    stored: Any = image.dataobj
    expected = stored.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    if expected > most * size:
        raise ValueError(
            f"{path} is cut or damaged, it has {size} bytes where its header, of shape "
            f"{image.shape}, tells of {expected}: copy it again."
        )


def check_mask(mask_img) -> None:
    """Say in a sentence that a data set of arrays has no mask."""
    if mask_img is None:
        raise ValueError(
            "these data have no mask_img, which says where voxels lie: give it to from_arrays."
        )


def voxel_coordinates(mask_img) -> np.ndarray:
    """Centre of each voxel of a mask in mm: (n_voxels, 3)."""
    check_mask(mask_img)
    return apply_affine(mask_img.affine, np.argwhere(mask_voxels(mask_img)))
