"""The machine around giblet: rights, disks, homes, and folders that move."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from folders import copy_of

from giblet.analysis.prediction import predict_fmri
from giblet.cli import main
from giblet.data import MultimodalDataset, VideoProcessor, default_data_dir, simulate_dataset
from giblet.data.coordinates import fit_span
from giblet.runs import load_or_train, load_run
from giblet.training import TrainingConfig

CONFIG = TrainingConfig(epochs=1, batch_size=16)
TINY = {
    "width": 1 / 128,
    "bottleneck_dim": 8,
    "video_processor": VideoProcessor(height=18, width=32, frame_skip=8),
    "progress": False,
}
NOBODY = 65534


def giblet(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["giblet", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def imported(simulated, tmp_path_factory):
    """All that is imported late: another user may not be allowed to read the library."""
    folder = tmp_path_factory.mktemp("imported")
    "".encode("utf-8-sig")
    run = load_or_train(simulated, CONFIG, folder, cache_dir=folder / "cache", **TINY)
    predict_fmri(run.model, run.data["test"])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        giblet(patch, "train", "--data", folder / "missing", "--out", folder / "run")
    return load_run(run.folder, cache_dir=folder / "cache", progress=False)


@pytest.fixture
def shared(simulated, imported):
    """A copy of the data that others may read, in a folder that they may look into."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "mine").mkdir(mode=0o755)
    yield copy_of(simulated, folder / "data")
    shutil.rmtree(folder)


@pytest.fixture
def as_other(shared, monkeypatch):
    """Call the function to become a user who may write to `mine` alone."""

    def become():
        monkeypatch.chdir(shared.parent)
        if os.geteuid() == 0:
            os.chown(shared.parent / "mine", NOBODY, NOBODY)
            os.seteuid(NOBODY)
        else:
            for folder in (shared.parent, shared, *filter(Path.is_dir, shared.rglob("*"))):
                folder.chmod(0o555)

    yield become
    if os.getuid() == 0:
        os.seteuid(0)
    for folder in (shared.parent, shared, *filter(Path.is_dir, shared.rglob("*"))):
        folder.chmod(0o755)


def test_data_that_cannot_be_written_to_need_a_cache_elsewhere(shared, as_other, monkeypatch):
    as_other()
    mine = shared.parent / "mine"
    refusal = rf"^giblet: {shared}/cache/\S+ cannot be written \(Permission denied\): .*--cache-dir"
    with pytest.raises(SystemExit, match=refusal):
        giblet(monkeypatch, "train", "--data", shared, "--out", mine / "run", "--epochs", 1)
    assert not (mine / "run").exists()
    refusal = rf"^giblet: {shared}/runs cannot be written \(Permission denied\): .*--out"
    with pytest.raises(SystemExit, match=refusal):
        giblet(monkeypatch, "train", "--data", shared, "--cache-dir", mine / "cache")
    assert list(mine.iterdir()) == []
    with pytest.raises(PermissionError, match=r"data/new cannot be written .*--out"):
        load_or_train(shared, CONFIG, shared / "new", cache_dir=mine / "cache", **TINY)


def test_cache_elsewhere_is_no_other_run(shared, tmp_path, monkeypatch, capsys):
    usual = load_or_train(shared, CONFIG, **TINY)
    cache = tmp_path / "my cache"
    elsewhere = load_or_train(shared, CONFIG, cache_dir=cache, **TINY)
    assert elsewhere.folder == usual.folder
    assert elsewhere.data["train"].cache.parent == cache
    assert len(list(cache.glob("*/span-*"))) == 1
    shutil.rmtree(shared / "cache")
    monkeypatch.setenv("GIBLET_RUN", str(usual.folder))
    assert load_or_train(shared, cache_dir=cache, progress=False).folder == usual.folder
    again = load_run(usual.folder, cache_dir=cache, progress=False)
    assert again.model.span.path.is_relative_to(cache)
    out = tmp_path / "films"
    giblet(monkeypatch, "reconstruct", "--out", out, "--cache-dir", cache)
    assert (out / "table.csv").is_file()
    assert not (shared / "cache").exists()


def test_run_of_somebody_else_is_read_without_writing(shared, as_other, tmp_path, monkeypatch):
    run = load_or_train(shared, CONFIG, shared / "run", **TINY)
    predicted = predict_fmri(run.model, run.data["test"])
    before = sorted(shared.rglob("*"))
    for file in filter(Path.is_file, before):
        file.chmod(0o444)
    as_other()
    for again in (
        load_or_train(shared, CONFIG, shared / "run", **TINY),
        load_run(shared / "run", progress=False),
        load_or_train(shared, CONFIG, shared.parent / "mine/run", **TINY),
    ):
        assert np.array_equal(predict_fmri(again.model, again.data["test"]), predicted)
        assert again.history == run.history
    assert sorted(shared.rglob("*")) == before
    longer = TrainingConfig(epochs=2, batch_size=16)
    with pytest.raises(PermissionError, match=r"run.* cannot be written \(Permission denied\)"):
        load_or_train(shared, longer, shared / "run", **TINY)


def test_verdict_of_somebody_elses_run_is_computed(shared, as_other):
    run = load_or_train(shared, CONFIG, shared / "run", **TINY)
    log = (shared / "run/log.jsonl").read_text().splitlines()
    (shared / "run/log.jsonl").write_text(log[0] + "\n")
    as_other()
    assert load_run(shared / "run", progress=False).verdict == run.verdict
    assert (shared / "run/log.jsonl").read_text() == log[0] + "\n"


def test_cache_that_others_may_not_read_is_one_sentence(shared, as_other):
    dataset = MultimodalDataset(shared, video_processor=TINY["video_processor"], progress=False)
    dataset.cache.chmod(0o700)
    as_other()
    if os.getuid() != 0:
        dataset.cache.chmod(0o000)
    with pytest.raises(
        PermissionError, match=r"manifest\.json cannot be read \(Permission denied\)"
    ):
        MultimodalDataset(shared, video_processor=TINY["video_processor"], progress=False)


@pytest.mark.parametrize("place", ["file", "file/run", "n" * 300])
def test_output_that_cannot_be_is_refused_before_training(simulated, tmp_path, monkeypatch, place):
    (tmp_path / "file").touch()
    for command in (
        ["train", "--data", simulated],
        ["reconstruct", "--checkpoint", tmp_path],
        ["demo"],
    ):
        with pytest.raises(
            SystemExit, match=r"^giblet: .* cannot be written \(\w[\w ]+\): "
        ) as said:
            giblet(monkeypatch, *command, "--out", tmp_path / place)
        assert str(said.value).count("\n") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("writer", ["numpy.save", "torch.save", "os.posix_fallocate"])
def test_full_disk_while_training_is_one_sentence(simulated, tmp_path, monkeypatch, writer, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writer, full)
    places = ["--out", tmp_path / "out", "--cache-dir", tmp_path / "cache"]
    with pytest.raises(SystemExit, match=r"^giblet: .* cannot be written .*: free some space"):
        giblet(monkeypatch, "train", "--data", simulated, *places, "--epochs", 1)
    written = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert all(
        name.endswith((".lock", ".npz", ".npy", ".json", ".jsonl", ".gz")) for name in written
    )
    assert "best.pt" not in written


def test_errors_of_the_program_keep_their_traceback(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise AttributeError("a fault of giblet")

    monkeypatch.setattr("giblet.runs.load_or_train", broken)
    with pytest.raises(AttributeError, match="a fault of giblet"):
        giblet(monkeypatch, "train", "--data", tmp_path, "--out", tmp_path / "out")


def nobody(uid):
    raise KeyError(uid)


@pytest.mark.parametrize("home", [None, "/proc"])
def test_simulated_data_of_a_user_without_a_home(tmp_path, monkeypatch, home):
    """They lie among the temporary files."""
    made = []
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr(
        "giblet.data.simulation.dataset.simulate_dataset", lambda path, **_: made.append(path)
    )
    for name in ("HOME", "XDG_CACHE_HOME", "GIBLET_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if home is not None:
        monkeypatch.setenv("HOME", home)
    default_data_dir()
    assert made == [tmp_path / f"giblet-{os.getuid()}/simulated-v3"]


def test_named_cache_needs_no_home(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "giblet.data.simulation.dataset.simulate_dataset", lambda path, **_: made.append(path)
    )
    monkeypatch.delenv("GIBLET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    default_data_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    default_data_dir()
    assert made == [tmp_path / "giblet/simulated-v3", tmp_path / "home/.cache/giblet/simulated-v3"]


@pytest.mark.parametrize("command", [["--help"], ["train", "--data", "data", "--out", "out"]])
def test_current_folder_that_is_gone(tmp_path, command):
    script = "import os, sys; os.rmdir(os.getcwd()); from giblet.cli import main; main()"
    (tmp_path / "gone").mkdir()
    arguments = [sys.executable, "-c", script, *command]
    ended = subprocess.run(arguments, cwd=tmp_path / "gone", capture_output=True, text=True)
    message = "giblet: the current folder no longer exists: change to another one.\n"
    assert (ended.returncode, ended.stderr) == (1, message)


def moved(folder: Path, tmp_path: Path, how: str) -> Path:
    """The data folder after what happens to folders."""
    target = tmp_path / "Müller's ~ data of 2024"
    if how == "renamed":
        return folder.rename(target)
    if how == "copied":  # with other times of the files, as `cp -r` does
        shutil.copytree(folder, target, copy_function=shutil.copyfile)
        shutil.rmtree(folder)
        return target
    if how == "linked":
        folder.rename(tmp_path / "elsewhere")
        target.symlink_to(tmp_path / "elsewhere")
        return target
    os.chdir(folder.parent)
    return Path(f"./{folder.name}/")


@pytest.mark.parametrize("how", ["renamed", "copied", "linked", "relative"])
def test_data_and_run_that_moved(simulated, tmp_path, monkeypatch, how):
    """A run in the data folder and its bases in the cache are found wherever both are now."""
    monkeypatch.chdir(tmp_path)
    data = copy_of(simulated, tmp_path / "data")
    run = load_or_train(data, CONFIG, **TINY)
    predicted = predict_fmri(run.model, run.data["test"])
    place = moved(data, tmp_path, how)
    folder = place / "runs" / run.folder.name
    again = load_run(folder, place, progress=False)
    assert np.array_equal(predict_fmri(again.model, again.data["test"]), predicted)
    resumed = load_or_train(place, CONFIG, folder, **TINY)
    assert resumed.history == run.history


def test_tilde_that_no_shell_replaced(simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    copy_of(simulated, tmp_path / "data")
    run = load_or_train("~/data", CONFIG, "~/run", cache_dir="~/cache", **TINY)
    assert run.folder == tmp_path / "run"
    assert load_run("~/run", "~/data", cache_dir="~/cache", progress=False).history == run.history
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".run.lock", "cache", "data", "run"]


def test_files_are_shared_as_the_user_shares_files(simulated, tmp_path):
    """By the umask, whatever the library that writes them."""
    before = os.umask(0o027)
    try:
        run = load_or_train(simulated, CONFIG, tmp_path / "run", cache_dir=tmp_path / "c", **TINY)
        fit_span(run.data["train"], tmp_path / "bases", progress=False)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {"best.pt", "best.safetensors", "video.npy"} <= {path.name for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_simulated_folder_that_is_damaged_is_one_sentence(tmp_path):
    (tmp_path / "dataset.toml").write_text("tr = [")
    with pytest.raises(ValueError, match="holds other files, expected nothing or one simulated"):
        simulate_dataset(tmp_path)
