"""The cortex as a picture that is recoloured by look-up: every pixel knows its voxel."""

from collections.abc import Mapping

import numpy as np
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from scipy.spatial import cKDTree

VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
N_POINTS = 6  # rows of points with which a triangle is filled


class BrainPicture:
    """Four views of fsaverage5, rendered once.

    Parameters
    ----------
    coordinates : (n_voxels, 3)
        Of the voxels in mm. A pixel shows the voxel nearest to its place on the pial surface.
    size : int
        Pixels of one view, square.
    reach_mm : float
        A place with no voxel as near as this shows none.

    Attributes
    ----------
    voxel : (size, 4 * size) int
        Voxel of each pixel, -1 where there is none.
    """

    def __init__(self, coordinates: np.ndarray, size: int = 130, reach_mm: float = 12.0):
        self.mesh = load_fsaverage("fsaverage5")
        sulci = load_fsaverage_data(data_type="sulcal")
        tree = cKDTree(coordinates)
        shades = []
        voxels = []
        for hemi, side in VIEWS:
            vertex = _vertex_of_pixels(self.mesh["inflated"].parts[hemi], hemi, side, size)
            distance, nearest = tree.query(self.mesh["pial"].parts[hemi].coordinates)
            nearest = np.where(distance <= reach_mm, nearest, -1)
            grey = np.where(sulci.data.parts[hemi] > 0, 120, 175)
            shades.append(np.where(vertex >= 0, grey[vertex], 255))
            voxels.append(np.where(vertex >= 0, nearest[vertex], -1))
        self.shade = np.hstack(shades).astype(np.uint8)
        self.voxel = np.hstack(voxels)

    def paint(self, colours: Mapping[tuple[int, int, int], np.ndarray]) -> np.ndarray:
        """The brain with voxels painted: (size, 4 * size, 3) uint8.

        `colours` maps (red, green, blue) to (n_voxels,) bool.
        """
        picture = np.repeat(self.shade[..., None], 3, axis=2)
        for colour, voxels in colours.items():
            picture[(self.voxel >= 0) & voxels[self.voxel]] = colour
        return picture


def _vertex_of_pixels(mesh, hemi: str, side: str, size: int) -> np.ndarray:
    """Nearest visible vertex of each pixel of a view from the side: (size, size).

    -1 outside the brain.
    """
    corners = mesh.coordinates[mesh.faces]  # (n_faces, 3 corners, 3)
    a, b = (x.ravel() for x in np.meshgrid(*[np.linspace(0, 1, N_POINTS)] * 2))
    weights = np.stack([a, b, 1 - a - b], axis=1)[a + b <= 1 + 1e-9]
    points = np.einsum("pc,fcd->fpd", weights, corners).reshape(-1, 3)
    vertices = mesh.faces[:, weights.argmax(1)].ravel()
    towards = 1 if (hemi == "right") == (side == "lateral") else -1  # x grows to the right
    low = mesh.coordinates.min(0)
    span = np.ptp(mesh.coordinates[:, 1:], axis=0).max() * 1.06
    centre = (mesh.coordinates.max(0) + low) / 2
    across = (points[:, 1] - centre[1]) * towards / span + 0.5
    down = 0.5 - (points[:, 2] - centre[2]) / span
    rows, columns = ((x * size).astype(int).clip(0, size - 1) for x in (down, across))
    order = np.argsort(points[:, 0] * towards)  # the nearest is drawn last
    seen = np.full((size, size), -1)
    seen[rows[order], columns[order]] = vertices[order]
    return seen
