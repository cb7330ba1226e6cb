import numpy as np

from giblet.analysis.tuning import top_trs


def test_top_moments(brain, region):
    rows = top_trs(brain, region, n=3, apart=3)
    response = brain.fmri[:, region].mean(1).numpy()
    assert rows[0] == response.argmax()
    assert np.all(np.diff(response[rows]) <= 0)
    trs = brain.dataset.tr_index[rows]
    assert np.abs(trs[:, None] - trs)[~np.eye(3, dtype=bool)].min() >= 3
