"""What a model was trained on: kept in its checkpoint, and compared before anything is scored."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from giblet.data.dataset import MultimodalDataset

# of a file: all of it would take minutes for a study
N_SAMPLES = 16
SAMPLE_BYTES = 2**16
# Where the data lie, how they were named, and a name for what the other entries say
WHERE = ("path", "entries", "hash")
N_NAMED = 3  # files that a message names


def fingerprint_file(file: str | Path) -> str:
    """Size of a file and a hash of samples spread over it; a copy anywhere has the same."""
    size = Path(file).stat().st_size
    digest = hashlib.sha256()
    with Path(file).open("rb") as opened:
        for start in np.linspace(0, max(0, size - SAMPLE_BYTES), N_SAMPLES).astype(int):
            opened.seek(start)
            digest.update(opened.read(SAMPLE_BYTES))
    return f"{size}-{digest.hexdigest()[:16]}"


def fingerprint_array(array: np.ndarray) -> str:
    """Shape of an array and a hash of its values."""
    shape = "x".join(map(str, array.shape))
    values = np.ascontiguousarray(array).view(np.uint8).data if array.size else b""
    return f"{shape}-{hashlib.sha256(values).hexdigest()[:16]}"


def hash_of(provenance: dict) -> str:
    """One short name for all entries but the place."""
    told = {name: value for name, value in provenance.items() if name not in WHERE}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def trained_on(train: "MultimodalDataset") -> dict:
    """The provenance of a training set and its items.

    To it come `train`, its TRs of the movie as [start, stop) intervals, and `average`, whether its
    items are means of the subjects.
    """
    rows = np.unique(train.tr_index)
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    intervals = [[int(part[0]), int(part[-1]) + 1] for part in parts]
    return train.provenance | {"train": intervals, "average": train.average}


def differences(trained_on: dict, provenance: dict, ignored: tuple[str, ...] = WHERE) -> dict:
    """Entries in which two `MultimodalDataset.provenance` differ: {name: (of training, now)}."""
    names = [name for name in provenance if name not in ignored]
    pairs = {name: (trained_on.get(name), provenance[name]) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def check_same_data(trained_on: dict | None, dataset: "MultimodalDataset") -> None:
    """Refuse data that a model was not made for.

    Parameters
    ----------
    trained_on : dict or None
        `model.trained_on`, see the function of this name. A model that giblet did not train has
        none, and nothing can be said about it.
    dataset : MultimodalDataset
        Its subjects may be others than in training; its stimuli, features and splits may not.

    Raises
    ------
    ValueError
        Naming what differs; or if any TR of training is not one of the data set's training TRs.
    """
    if trained_on is None:
        return
    found = differences(trained_on, dataset.provenance, (*WHERE, "subjects"))
    if found:
        raise ValueError(
            f"the model was trained on other data than this data set: {describe(found)}; open the "
            "data as they were in training, with `giblet.load_run`."
        )
    rows = np.concatenate([np.arange(*pair) for pair in trained_on["train"]])
    n_others = int((dataset.split_labels[rows] != "train").sum())
    if n_others:
        raise ValueError(
            f"the model was trained on {n_others} TRs that are no training TRs of this data set, "
            "so none of its scores would be held out: train on its split 'train'."
        )


def describe(found: dict) -> str:
    """What `differences` found, in words."""
    said = []
    for name, (then, now) in found.items():
        if name == "files":
            said.append(_differing_files(then or {}, now))
        elif name == "train":
            said.append("other training TRs")
        else:
            said.append(f"{name}={then!r} (now {now!r})")
    return ", ".join(said)


def _differing_files(then: dict, now: dict) -> str:
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return f"other contents of {', '.join(names[:N_NAMED])}{more}"


def check_held_out(dataset: "MultimodalDataset") -> None:
    """Refuse to score TRs of training.

    Raises
    ------
    ValueError
        If any TR of the data set is a training TR.
    """
    n_trained = int((dataset.split_labels[dataset.tr_index] == "train").sum())
    if n_trained:
        raise ValueError(
            f"the data set holds {n_trained} training TRs (split is {dataset.split!r}), and a "
            "score on them says nothing: take its split 'test', or 'val'."
        )
