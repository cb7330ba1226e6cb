import json
import os
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from giblet.basis import Basis, Span, fit_basis


def blocks_of(matrix: np.ndarray, n_columns: int = 64) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: (
        matrix[:, start : start + n_columns] for start in range(0, matrix.shape[1], n_columns)
    )


def test_basis_of_a_film_with_repeated_trs_is_orthonormal():
    """Few scenes, each still for several TRs, in 8 bits: the Gram matrix is singular."""
    rng = np.random.default_rng(0)
    scenes = np.repeat(rng.integers(0, 256, (30, 5000)), 4, axis=0)
    film = np.clip(scenes + (rng.random(scenes.shape) < 0.01), 0, 255) / 255
    film[60:] = film[:60]
    vectors, report = fit_basis(blocks_of(film, 512))
    basis = np.concatenate(list(vectors))
    assert basis.shape == (5000, report["n_coordinates"]) == (5000, 60)
    assert np.abs(basis.T @ basis - np.eye(60)).max() < 1e-12
    assert np.abs(film @ basis @ basis.T - film).max() < 1e-9
    assert report["explained"] == pytest.approx(1)


def test_truncated_basis_keeps_the_largest_directions():
    """Against numpy's SVD; the explained variance against a direct computation."""
    rng = np.random.default_rng(0)
    matrix = 3 + rng.standard_normal((40, 20)) * 0.8 ** np.arange(20) @ rng.standard_normal(
        (20, 500)
    )
    vectors, report = fit_basis(blocks_of(matrix), rank=6)
    basis = np.concatenate(list(vectors))
    want = np.linalg.svd(matrix)[2][:6]
    np.testing.assert_allclose(np.linalg.svd(want @ basis)[1], 1, atol=1e-9)  # the same subspace
    lost = (
        np.square(matrix - matrix @ basis @ basis.T).sum()
        / np.square(matrix - matrix.mean(0)).sum()
    )
    assert report["n_coordinates"] == 6
    assert report["explained"] == pytest.approx(1 - lost, abs=1e-9)
    assert 0.5 < report["explained"] < 0.999


def test_coordinates_are_those_of_the_part_within_the_span(rng):
    vectors = np.linalg.qr(rng.standard_normal((30, 4)))[0]
    basis = Basis(30, torch.from_numpy(vectors))
    values = rng.standard_normal((5, 30))
    coordinates = basis.coordinates(torch.from_numpy(values))
    assert basis.n_coordinates == 4
    np.testing.assert_allclose(coordinates, values @ vectors, atol=1e-12)
    np.testing.assert_allclose(basis.expand(coordinates), values @ vectors @ vectors.T, atol=1e-12)
    assert not basis.state_dict()  # checkpoints hold no bases


def test_without_vectors_values_are_their_own_coordinates(rng):
    values = torch.from_numpy(rng.standard_normal((5, 30)))
    basis = Basis(30)
    assert basis.n_coordinates == 30
    assert basis.coordinates(values) is values
    assert basis.expand(values) is values


def test_folder_without_bases_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no bases: train again, or put the folder"):
        Span.open(tmp_path)


def with_report(**entries):
    def write(folder):
        report = json.loads((folder / "span.json").read_text()) | entries
        (folder / "span.json").write_text(json.dumps(report))

    return write


DAMAGE = {
    "span.json is damaged": lambda folder: os.truncate(folder / "span.json", 10),
    "span.json is damaged (": lambda folder: (folder / "span.json").write_text("[]"),
    "span.json is damaged (KeyError('video'))": lambda folder: (folder / "span.json").write_text(
        '{"id": "a"}'
    ),
    "span.json is damaged (TypeError": with_report(fmri=None),
    "span.json is damaged (id is 3)": with_report(id=3),
    "video.npy is missing, but span.json names it": lambda folder: (folder / "video.npy").unlink(),
    "fmri.npy is damaged or no .npy": lambda folder: os.truncate(folder / "fmri.npy", 300),
    "fmri.npy is damaged or no .npy (": lambda folder: os.truncate(folder / "fmri.npy", 0),
    "video.npy has shape (5, 2), expected (9, 2)": lambda folder: np.save(
        folder / "video.npy", np.zeros((5, 2))
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_bases_are_one_sentence(tmp_path, message):
    sizes = {"video": (9, 2), "fmri": (40, 3), "none": (4, 4)}
    report = {name: {"n_values": n, "n_coordinates": k} for name, (n, k) in sizes.items()}
    (tmp_path / "span.json").write_text(json.dumps({"id": "a"} | report))
    for name in ("video", "fmri"):
        np.save(tmp_path / f"{name}.npy", np.zeros(sizes[name]))
    assert Span.open(tmp_path).basis("none").vectors is None
    DAMAGE[message](tmp_path)
    with pytest.raises(ValueError, match=rf"{re.escape(message)}.*: copy these bases again, or"):
        Span.open(tmp_path)
