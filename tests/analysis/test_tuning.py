import numpy as np
from brains import planted_model

from giblet.analysis.lesions import Brain
from giblet.analysis.tuning import top_trs, unit_region_map


def test_units_read_the_region_that_is_read(data):
    model, regions = planted_model(data)
    test = data["test"]
    brain = Brain(model, test, test.fmri())
    reads = unit_region_map(brain, regions)
    assert (reads["r0"] > 0).all()
    assert (reads.drop(columns="r0") == 0).all(axis=None)
    contribution = (
        brain.fmri[:, regions.voxels("r0")]
        @ model.encoder.to_bottleneck.weight[:, regions.voxels("r0")].T
    )
    assert np.allclose(reads["r0"], contribution.std(0).detach(), rtol=1e-4)
    assert reads.columns.name == "SIMULATED data"
    assert reads.index.tolist() == list(range(8))


def test_top_moments(brain, region):
    rows = top_trs(brain, region, n=3, apart=3)
    response = brain.fmri[:, region].mean(1).numpy()
    assert rows[0] == response.argmax()
    assert np.all(np.diff(response[rows]) <= 0)
    trs = brain.dataset.tr_index[rows]
    assert np.abs(trs[:, None] - trs)[~np.eye(3, dtype=bool)].min() >= 3


def test_empty_region_answers_nowhere(brain):
    assert len(top_trs(brain, np.zeros(brain.fmri.shape[1], bool))) == 0
