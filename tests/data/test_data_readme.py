"""The cell of data/README.md that takes arrays to a trained model, a table and lesions."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from giblet.training import TrainingConfig

README = Path(__file__).parents[2] / "data" / "README.md"
CELL = next(
    cell
    for cell in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    if "from_arrays" in cell
)


def planted(rng, n_trs: int = 600, n_parcels: int = 200) -> dict[str, np.ndarray]:
    """Slow features, and ten brains; half of the parcels follow them three TRs later."""
    text = lfilter([1], [1, -0.9], rng.standard_normal((n_trs, 20)), axis=0)
    signal = np.roll(text @ rng.standard_normal((20, n_parcels)), 3, axis=0)
    signal[:, n_parcels // 2 :] = 0
    noise = rng.standard_normal((10, n_trs, n_parcels))
    return {"text": text, "fmri": signal / signal[:, 0].std() + noise}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the cell makes of features in one unit and in another."""

    def run(scale: float, folder: Path) -> dict:
        arrays = planted(np.random.default_rng(0))
        arrays["text"] = scale * arrays["text"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr("giblet.runs.TrainingConfig", partial(TrainingConfig, epochs=8))
            exec(CELL, arrays)
        return arrays

    return {scale: run(scale, tmp_path_factory.mktemp("arrays")) for scale in (1, 1000)}


def test_is_a_cell():
    assert len(CELL.splitlines()) <= 15


def test_parcels_that_follow_are_predicted_and_the_others_are_not(found):
    table = found[1]["table"]
    follow = np.arange(200) < 100
    assert table.index[6] == "parcel 7"
    assert table["r"][follow].mean() > 0.3
    assert table["ridge r"][follow].mean() > 0.3
    assert table["r"][~follow].abs().mean() < 0.12
    assert table["ridge r"][~follow].abs().mean() < 0.12


def test_a_lesion_of_a_parcel_has_an_effect_beside_its_null(found):
    lesions = found[1]["lesions"]
    assert lesions.shape == (200, 4)
    assert lesions[("", "n_voxels")].eq(1).all()
    assert lesions.loc["parcel 7"].notna().all()
    effect = lesions[("text", "effect")]
    assert effect[:100].abs().mean() > 2 * effect[100:].abs().mean()


def test_unit_of_the_features_does_not_matter(found):
    pd.testing.assert_series_equal(found[1]["table"]["r"], found[1000]["table"]["r"], atol=1e-3)
    pd.testing.assert_series_equal(
        found[1]["table"]["ridge r"], found[1000]["table"]["ridge r"], atol=1e-3
    )
