"""The cortex as a picture whose every pixel knows its voxel."""

import numpy as np
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from scipy.spatial import cKDTree

VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
N_POINTS = 6  # rows of points with which a triangle is filled
SULCUS, GYRUS = 125, 190  # grey of each, before light and shade
AMBIENT = 0.55  # share of light that falls everywhere; the rest comes from the viewer


class BrainPicture:
    """Four views of fsaverage5 side by side, rendered once.

    Parameters
    ----------
    coordinates : (n_voxels, 3)
        Of the voxels in mm. A pixel shows the voxel nearest to its place on the pial surface.
    size : int
        Width of one view in pixels.
    reach_mm : float
        A place with no voxel as near as this shows none.

    Attributes
    ----------
    voxel : (height, 4 * size) int
        Voxel of each pixel, -1 where there is none.
    shade : (height, 4 * size) uint8
        Grey of each pixel, 0 outside the brain.
    """

    def __init__(self, coordinates: np.ndarray, size: int = 130, reach_mm: float = 12.0):
        mesh = load_fsaverage("fsaverage5")
        sulci = load_fsaverage_data(data_type="sulcal")
        tree = cKDTree(coordinates)
        shades = []
        voxels = []
        for hemi, side in VIEWS:
            inflated = mesh["inflated"].parts[hemi]
            vertex = _vertex_of_pixels(inflated, hemi, side, size)
            distance, nearest = tree.query(mesh["pial"].parts[hemi].coordinates)
            nearest = np.where(distance <= reach_mm, nearest, -1)
            grey = np.where(sulci.data.parts[hemi] > 0, SULCUS, GYRUS)
            light = AMBIENT + (1 - AMBIENT) * np.abs(_normals(inflated)[:, 0])
            shades.append(np.where(vertex >= 0, (grey * light)[vertex], 0))
            voxels.append(np.where(vertex >= 0, nearest[vertex], -1))
        shade = np.hstack(shades).round().astype(np.uint8)
        is_brain = shade.any(1)
        self.shade = shade[is_brain]
        self.voxel = np.hstack(voxels)[is_brain]

    def pixels(self, voxels: np.ndarray) -> np.ndarray:
        """Which pixels show one of some voxels, (n_voxels,) bool: (height, 4 * size) bool."""
        return (self.voxel >= 0) & voxels[self.voxel]


def _normals(mesh) -> np.ndarray:
    """Direction in which the surface faces at each vertex: (n_vertices, 3) of unit length."""
    a, b, c = np.moveaxis(mesh.coordinates[mesh.faces], 1, 0)
    of_faces = np.cross(b - a, c - a)
    normals = np.zeros_like(mesh.coordinates)
    for corner in mesh.faces.T:
        np.add.at(normals, corner, of_faces)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


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
