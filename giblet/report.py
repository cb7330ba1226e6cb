"""What the command line prints and writes of a run: held-out prediction, and reconstructions."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from giblet.analysis.chance import N_PERMUTE
from giblet.analysis.prediction import Prediction, with_planted
from giblet.analysis.reconstruction import SOURCES, Reconstruction, reconstruction_table
from giblet.data import MultimodalDataset
from giblet.data.audio import RATE
from giblet.data.media import write_movie, write_wav
from giblet.files import atomic_path, check_writable, expanded
from giblet.models import MultimodalAutoencoder
from giblet.plotting.media import (
    plot_film_strips,
    plot_identification,
    plot_spectrograms,
    to_frames,
    write_side_by_side,
)
from giblet.runs import Run

SMALLEST_P = 1 / (N_PERMUTE + 1)
DECIMALS = {"r": 3, "null_mean": 3, "null_sd": 3, "z": 1, "p": 4}


def report_prediction(run: Run, out: Path) -> None:
    """Print held-out r by region beside its null, and write it with its maps and a figure.

    `prediction.csv` and `prediction.png`; `r.nii.gz` and `q.nii.gz`, see `Prediction.save`.
    """
    prediction = Prediction(run.model, run.data["all"])
    table = with_planted(prediction.network_table(), run.data["all"])
    planted = run.data["all"].planted
    print(f"\n{run.ended}")
    print(
        f"{run.data['all'].label}held-out r over {run.data['test'].n_trs} test TRs, mean response "
        "of the subjects"
    )
    print(table.round(DECIMALS).to_string())
    print(
        "z = (r - null_mean) / null_sd; the smallest p that "
        f"{N_PERMUTE} draws can give is {SMALLEST_P:.4f}"
    )
    _print_ridge(prediction)
    n_inside = int((prediction.regions.labels >= 0).sum())
    print(f"the regions hold {n_inside:,} of {len(prediction.r):,} voxels")
    if planted:
        _compare_with_planted(table, planted)
    prediction.save(out)
    with atomic_path(out / "prediction.png") as temporary:
        prediction.plot().savefig(temporary, dpi=110)
    _print_files(run, out)
    print(run.verdict)


def _print_ridge(prediction: Prediction) -> None:
    """The same r beside ridge regression and the network alone; or why there is none."""
    try:
        compared = prediction.compared
    except ValueError as error:
        print(f"\nwithout ridge regression to compare with: {error}")
        return
    regions = prediction.regions
    columns = {name: regions.mean(prediction.score(x)) for name, x in compared.items()}
    if prediction.ridge_weight is not None:
        columns["weight of ridge"] = regions.mean(prediction.ridge_weight)
    table = pd.DataFrame(columns, index=pd.Index(regions.names, name="network"))
    shown = prediction.whole.marked(table).round(3).to_string()
    print(f"\nheld-out r beside ridge regression on the same features\n{shown}\n")


def _compare_with_planted(table: pd.DataFrame, planted: Mapping[str, list[str]]) -> None:
    driven = table.index.isin(list(planted))
    lowest = table["z"][driven].min()
    highest = table["z"][~driven].abs().max()
    print(f"planted networks: smallest z {lowest:.1f}, expected above 3")
    print(f"silent networks: largest |z| {highest:.1f}, expected below 3")


def _print_files(run: Run, out: Path) -> None:
    """Name what was written, from where the user is."""
    names = ["prediction.png", "prediction.csv"]
    names += [name for name in ("r.nii.gz", "q.nii.gz") if (out / name).is_file()]
    kept = [name for name in ("merged.pt", "best.pt", "log.jsonl") if (run.folder / name).is_file()]
    names += [os.path.relpath(run.folder / name, out) for name in kept]
    print(f"\nwritten to {shown_path(out)}/: {', '.join(names)}")


def shown_path(path: Path) -> str:
    """A path as a shell takes it from where the user is: relative below here, ~ below home.

    It is absolute for a user without a home, whose log is read elsewhere than in the container that
    wrote it.
    """
    path = path.resolve()
    home = expanded("~")
    if not home.is_absolute() or home == Path(home.anchor):
        return str(path)
    with suppress(FileNotFoundError):  # here may be gone
        if path.is_relative_to(Path.cwd()):
            return os.path.relpath(path)
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def write_reconstructions(
    model: MultimodalAutoencoder,
    dataset: MultimodalDataset,
    out: str | Path,
    subject: str | None = None,
) -> pd.DataFrame:
    """Write all there is to see, hear and read of a held-out split; return mean scores.

    `films.mp4` shows the movie and its reconstructions side by side, with the sound from the
    measured brain; each source also has a film with its own sound. `film_strips.png`,
    `spectrograms.png` and `identification.png` are the figures, `scores.csv` has every score of
    every TR, `table.csv` their means, and `text.csv` the nearest annotations. What belongs to a
    modality that is absent, or that arrays hold as features, is left out, and so is the predicted
    brain of data without validation TRs, see `source_fmri`.

    Parameters
    ----------
    dataset : MultimodalDataset
        The held-out split.
    out : folder
    subject : str, optional
        One subject's measured brain instead of the mean of the group.
    """
    out = Path(out)
    check_writable(out)
    movie = Reconstruction(model, dataset, "movie")
    validated = "val" in dataset.split_labels
    sources = [source for source in SOURCES if source != "predicted" or validated]
    recon = {source: Reconstruction(model, dataset, source, subject) for source in sources}
    identified = {}
    for source in tqdm(sources, "reconstructions", unit="source"):
        identified[source] = recon[source].identify()
    decoded = {name: one.decoded for name, one in {"movie": movie, **recon}.items()}
    by_modality = {
        modality: {name: values[modality] for name, values in decoded.items()}
        for modality in dataset.present
    }
    _write_films(out, by_modality, dataset)
    figures = _reconstruction_figures(by_modality, dataset)
    title = f"{dataset.label}identification of held-out TRs"
    figures["identification"] = plot_identification(identified, title)
    for name, figure in figures.items():
        with atomic_path(out / f"{name}.png") as temporary:
            figure.savefig(temporary, dpi=110)
    table = reconstruction_table(recon)
    scores = {source: one.scores for source, one in recon.items()}
    tables = {"scores": pd.concat(scores, axis=1), "table": table}
    if "text" in by_modality and dataset.text_processor is not None:
        tables["text"] = _nearest_annotations(by_modality["text"], dataset)
    for name, values in tables.items():
        with atomic_path(out / f"{name}.csv") as temporary:
            values.to_csv(temporary)
    return table


def _reconstruction_figures(
    by_modality: Mapping[str, Mapping[str, Tensor]], test: MultimodalDataset
) -> dict[str, Figure]:
    figures = {}
    if "video" in by_modality and test.video_processor is not None:
        rows = np.linspace(0, test.n_trs - 1, 8).astype(int)
        title = f"{test.label}held-out film and reconstructions"
        figures["film_strips"] = plot_film_strips(by_modality["video"], rows, test, title)
    heard = "audio" in by_modality and test.audio_processor is not None
    if heard and test.audio_processor.mel_shape is not None:
        first = {name: values[:20] for name, values in by_modality["audio"].items()}
        title = f"{test.label}held-out sound"
        figures["spectrograms"] = plot_spectrograms(first, test.audio_processor, title)
    return figures


def _nearest_annotations(text: Mapping[str, Tensor], test: MultimodalDataset) -> pd.DataFrame:
    nearest = {}
    for name, values in text.items():
        nearest[name] = [best[0][0] for best in test.text_processor.features_to_text(values)]
    return pd.DataFrame(nearest, index=pd.Index(test.tr_index, name="TR"))


def _write_films(
    out: Path, by_modality: Mapping[str, Mapping[str, Tensor]], test: MultimodalDataset
) -> None:
    """Films with sound; sounds alone where there is no video."""
    audio = by_modality.get("audio", {}) if test.audio_processor is not None else {}
    sounds = {}
    for name, values in audio.items():
        sounds[name] = test.audio_processor.features_to_sound(values)
    if "video" not in by_modality or test.video_processor is None:
        for name, sound in sounds.items():
            write_wav(out / f"{name}.wav", sound, RATE)
        return
    processor = test.video_processor
    write_side_by_side(out / "films.mp4", by_modality["video"], processor, sounds.get("measured"))
    for name, values in by_modality["video"].items():
        frames = to_frames(values, processor)
        rate = processor.n_frames / processor.tr
        write_movie(out / f"{name}.mp4", frames, rate, sounds.get(name), RATE)
