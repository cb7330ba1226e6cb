import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ranks import CONFIG, WIDTHS, Planted, assert_same, new_trainer, state_of

from giblet.data import MultimodalDataset, fit_span
from giblet.models import MultimodalAutoencoder, SpanAutoencoder
from giblet.training import Trainer, TrainingConfig, TrainingError, load_checkpoint, load_model
from giblet.training.checkpoint import best_epoch
from giblet.training.config import learning_rate_at
from giblet.training.step import seed_of


def test_learns_a_planted_response(tmp_path):
    """Held-out r approaches the ceiling that the noise leaves; before training it is near 0."""
    trainer = new_trainer(
        TrainingConfig(epochs=20, batch_size=16, learning_rate=5e-3), train=Planted(400)
    )
    before = trainer.evaluate(trainer.val)["r"]
    history = trainer.fit(tmp_path, progress=False)
    assert abs(before) < 0.3
    assert history[best_epoch(history)]["val"]["r"] > 0.8
    assert history[-1]["train"]["total"] < 0.5 * history[0]["train"]["total"]


def test_evaluate_against_direct_computation():
    trainer = new_trainer()
    val = Planted(40, seed=1)
    scores = trainer.evaluate(val)
    with torch.no_grad():
        outputs = trainer.model(val.arrays["video"], val.arrays["audio"], val.arrays["text"])
        targets = [val.arrays[name] for name in ("fmri", "video", "audio", "text")]
        _, losses = trainer.model.compute_loss(outputs, *targets)
    x = outputs["fmri_pred"].double().numpy()
    y = val.arrays["fmri"].double().numpy()
    r = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(20)])
    assert scores == pytest.approx(losses | {"r": r}, rel=1e-5)


def test_every_tr_once_an_epoch_in_a_new_order(tmp_path):
    trainer = new_trainer()
    trainer.fit(tmp_path, progress=False)
    epochs = np.reshape(trainer.train.seen, (6, 70))
    assert all(sorted(epoch) == list(range(70)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_same_seed_same_numbers(tmp_path):
    first = new_trainer()
    second = new_trainer()
    other = new_trainer(replace(CONFIG, random_state=1))
    torch.manual_seed(7)
    history = first.fit(tmp_path / "a", progress=False)
    assert torch.initial_seed() == 7  # the caller's generator is left alone
    torch.rand(5)
    assert second.fit(tmp_path / "b", progress=False) == history
    assert other.fit(tmp_path / "c", progress=False) != history
    assert_same(state_of(first), state_of(second))


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_interrupted_run_ends_as_the_uninterrupted_one(tmp_path, stop_after):
    def interrupt(history):
        if len(history) == stop_after:
            raise KeyboardInterrupt

    whole = new_trainer()
    history = whole.fit(tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        new_trainer().fit(tmp_path / "run", interrupt, progress=False)
    resumed = new_trainer(
        seed=9
    )  # other initial weights: they must come from the checkpoint, where there is one
    if stop_after < CONFIG.checkpoint_every:
        resumed = new_trainer()
    assert resumed.fit(tmp_path / "run", progress=False) == history
    assert_same(state_of(whole), state_of(resumed))
    for name in ("best.pt", "best.safetensors", "last.pt"):
        a, b = (load_checkpoint(tmp_path / folder / name) for folder in ("whole", "run"))
        assert_same(a["model_state_dict"], b["model_state_dict"])
    assert (tmp_path / "run/log.jsonl").read_text() == (tmp_path / "whole/log.jsonl").read_text()


class Signalling(Planted):
    """Signals its own process when a batch is asked for."""

    def __init__(self, n_trs: int, batch: int, *signals: int):
        super().__init__(n_trs)
        self.countdown = batch
        self.signals = signals

    def __getitem__(self, index: list[int]) -> dict:
        self.countdown -= 1
        for number in self.signals if self.countdown == 0 else ():
            os.kill(os.getpid(), number)
        return super().__getitem__(index)


@pytest.mark.parametrize("batch", [2, 10, 13])  # in the first epoch, at the end of one, within one
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGUSR1, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_asked_to_stop_it_saves_within_the_epoch(tmp_path, capsys, batch, number, error):
    before = signal.getsignal(number)
    with pytest.raises(error) as stop:
        new_trainer(train=Signalling(70, batch, number)).fit(tmp_path / "run", progress=False)
    assert stop.type is KeyboardInterrupt or stop.value.code == 0
    assert signal.getsignal(number) is before
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] == batch
    assert f"saved step {batch} in" in capsys.readouterr().err
    whole = new_trainer()
    resumed = new_trainer(seed=9)
    assert resumed.fit(tmp_path / "run", progress=False) == whole.fit(
        tmp_path / "whole", progress=False
    )
    assert_same(state_of(whole), state_of(resumed))
    assert sorted(resumed.train.seen[: 70 - 14 * (batch % 5)]) != list(range(70)) or batch % 5 == 0


def test_second_interrupt_is_answered_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        new_trainer(train=Signalling(70, 2, signal.SIGINT, signal.SIGINT)).fit(
            tmp_path, progress=False
        )
    assert not (tmp_path / "last.pt").exists()


def test_ends_when_the_process_that_launched_it_has_ended(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setenv("GIBLET_LAUNCHER", str(ended.pid))
    with pytest.raises(SystemExit):
        new_trainer().fit(tmp_path, progress=False)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1


def test_micro_batches_are_averaged(tmp_path):
    """One step of SGD on three uneven micro-batches against the mean of their own gradients."""
    config = replace(CONFIG, epochs=1, batch_size=70, micro_batches=3, clip_norm=1e9)
    trainer = new_trainer(config)
    single = new_trainer()
    groups = [
        {key: group[key] for key in ("params", "rate")} for group in trainer.optimizer.param_groups
    ]
    trainer.optimizer = torch.optim.SGD(groups, lr=1.0)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(seed_of(0, 0, 0)))
    gradients = []
    running = []
    start = state_of(single)
    for micro, rows in enumerate(torch.tensor_split(order, 3)):
        single.model.load_state_dict(start)
        single.model.train().zero_grad()
        torch.manual_seed(seed_of(0, 1, 0, micro))
        single.model.batch_loss(single.train[rows.tolist()])[0].backward()
        gradients.append([len(rows) / 70 * p.grad for p in single.model.parameters()])
        running.append(single.model.decoder.trunk[0][1].running_mean.clone())
    trainer.fit(tmp_path, progress=False)
    rate = learning_rate_at(0, 1, config)
    for (name, parameter), *parts in zip(trainer.model.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), start[name] - rate * sum(parts))
    torch.testing.assert_close(trainer.model.decoder.trunk[0][1].running_mean, sum(running) / 3)


@pytest.mark.parametrize(("n_micro", "n_trs"), [(8, 70), (2, 3)])
def test_micro_batch_of_one_tr_is_refused(n_micro, n_trs):
    with pytest.raises(ValueError, match=r"micro-batches of a batch of \d+ TRs.*raise batch_size"):
        new_trainer(replace(CONFIG, micro_batches=n_micro), train=Planted(n_trs))


def test_early_stopping_keeps_the_best_weights(tmp_path):
    """Validation TRs whose voxels are noise get worse as training goes on."""
    config = TrainingConfig(epochs=40, batch_size=16, learning_rate=2e-2, patience=3)
    trainer = new_trainer(config, val=Planted(40, seed=1, noise=5.0))
    history = trainer.fit(tmp_path, progress=False)
    kept = best_epoch(history)
    assert len(history) < 40
    assert len(history) - 1 - kept == 3
    assert trainer.evaluate(trainer.val)["r"] == pytest.approx(history[kept]["val"]["r"])
    assert_same(state_of(trainer), load_checkpoint(tmp_path / "best.pt")["model_state_dict"])


def history_of(r: list[float]) -> list[dict]:
    return [{"val": {"r": value, "total": -value}} for value in r]


def test_best_epoch_is_that_of_the_highest_smoothed_r():
    lucky = [0.0, 0.0, 0.9, 0.0, 0.0, 0.3, 0.4, 0.5, 0.5, 0.5, 0.4]
    assert (
        best_epoch(history_of(lucky)) == 10
    )  # mean of the last five .46; of the lucky one and two before it .30
    assert best_epoch(history_of([0.2] * 12)) == 0  # of equals the first
    assert best_epoch(history_of([0.1])) == 0
    assert best_epoch([{"val": {}}] * 7) == 6  # nothing to validate by


def test_best_epoch_against_direct_means(rng):
    r = rng.standard_normal(60)
    means = [
        sum(r[max(0, epoch - 4) : epoch + 1]) / len(r[max(0, epoch - 4) : epoch + 1])
        for epoch in range(60)
    ]
    assert best_epoch(history_of(r.tolist())) == int(np.argmax(means))


def test_without_validation_trs_the_last_epoch_is_kept(tmp_path):
    trainer = new_trainer(replace(CONFIG, patience=1), val=Planted(0))
    history = trainer.fit(tmp_path, progress=False)
    assert len(history) == CONFIG.epochs
    assert all(entry["val"] == {} for entry in history)
    best, last = (
        load_checkpoint(tmp_path / name)["model_state_dict"] for name in ("best.pt", "last.pt")
    )
    assert_same(best, last)
    assert (
        new_trainer(replace(CONFIG, patience=1), val=Planted(0)).fit(tmp_path, progress=False)
        == history
    )


def test_validation_r_is_of_the_voxels_that_subjects_share(tmp_path, rng):
    """Half of the voxels follow the movie in every subject, half are noise."""
    text = rng.standard_normal((300, 6))
    shared = text @ rng.standard_normal((6, 10))
    fmri = np.concatenate([shared + np.zeros((4, 300, 10)), np.zeros((4, 300, 10))], axis=2)
    fmri += 0.5 * rng.standard_normal(fmri.shape)
    train, val = (
        MultimodalDataset.from_arrays(text=text, fmri=fmri, split=split, average=True)
        for split in ("train", "val")
    )
    model = MultimodalAutoencoder(**train.model_dims, bottleneck_dim=4, width=1 / 32)
    trainer = Trainer(model, train, val, TrainingConfig(epochs=2, device="cpu"))
    trainer.fit(tmp_path, progress=False)
    batch = val[list(range(len(val)))]
    with torch.no_grad():
        predicted = model.encoder(batch["video"], batch["audio"], batch["text"])[0].numpy()
    r = [np.corrcoef(predicted[:, v], batch["fmri"][:, v])[0, 1] for v in range(20)]
    assert trainer.evaluate(val)["r"] == pytest.approx(np.mean(r[:10]), abs=1e-5)
    assert trainer.evaluate(val)["r"] != pytest.approx(np.mean(r), abs=1e-2)


def test_not_a_number_stops_the_run(tmp_path):
    trainer = new_trainer()
    trainer.train.arrays["fmri"][3] = float("nan")
    with pytest.raises(
        TrainingError, match=r"loss at step [0-4] is nan: there is no checkpoint yet"
    ):
        trainer.fit(tmp_path, progress=False)
    assert not (tmp_path / "last.pt").exists()


def test_gradient_is_clipped(tmp_path, monkeypatch):
    norms = []

    def step(optimizer, *_):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    new_trainer(TrainingConfig(epochs=1, batch_size=16, clip_norm=0.01)).fit(
        tmp_path, progress=False
    )
    assert norms == pytest.approx([0.01] * 5, rel=1e-3)


def test_bfloat16_arithmetic_keeps_float32_weights(tmp_path):
    config = replace(CONFIG, precision="bf16")
    half = new_trainer(config)
    full = new_trainer()
    losses = [
        t.fit(tmp_path / t.config.precision, progress=False)[-1]["val"]["total"]
        for t in (half, full)
    ]
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.fixture
def in_span(tmp_path, rng) -> dict:
    """Two data sets of the same arrays, and the bases of the first."""
    arrays = {
        name: rng.standard_normal((150, width)) for name, width in WIDTHS.items() if name != "fmri"
    }
    latents = rng.standard_normal((150, 3))
    arrays |= {
        "video": latents @ rng.standard_normal((3, 200)),
        "fmri": rng.standard_normal((3, 150, 170)),
    }
    arrays["video"] += 0.1 * rng.standard_normal((150, 200))
    arrays["fmri"] += latents @ rng.standard_normal((3, 170))
    settings = {"average": True, "fractions": (0.6, 0.2, 0.2)}
    data = {
        s: MultimodalDataset.from_arrays(**arrays, split=s, **settings) for s in ("train", "val")
    }
    return data | {"span": fit_span(data["train"], tmp_path / "bases", progress=False)}


def span_trainer(in_span: dict, seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    settings = {"bottleneck_dim": 8, "width": 1 / 32, "measured_weight": 1.0}
    model = SpanAutoencoder(in_span["span"], **in_span["train"].model_dims, **settings)
    return Trainer(model, in_span["train"], in_span["val"], CONFIG)


def test_span_model_trains_and_its_scores_are_those_of_the_full_size_one(in_span, tmp_path):
    """Held-out losses and the r of voxels, against the materialised model on the data set."""
    trainer = span_trainer(in_span)
    history = trainer.fit(tmp_path / "run", progress=False)
    assert history[-1]["train"]["total"] < history[0]["train"]["total"]
    direct = Trainer(trainer.model.materialize(), in_span["train"], in_span["val"], CONFIG)
    assert trainer.evaluate(trainer.val) == pytest.approx(direct.evaluate(in_span["val"]), rel=1e-4)
    assert trainer.evaluate(trainer.val)["r"] > 0.1


def test_span_run_resumes_and_loads(in_span, tmp_path):
    def interrupt(history):
        if len(history) == 3:
            raise KeyboardInterrupt

    whole = span_trainer(in_span)
    history = whole.fit(tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        span_trainer(in_span).fit(tmp_path / "run", interrupt, progress=False)
    resumed = span_trainer(in_span, seed=9)
    assert resumed.fit(tmp_path / "run", progress=False) == history
    assert_same(state_of(whole), state_of(resumed))
    model = load_model(tmp_path / "run/best.pt")
    assert isinstance(model, SpanAutoencoder)
    assert_same(model.state_dict(), state_of(whole))


def test_bases_that_moved_are_asked_for(in_span, tmp_path):
    trainer = span_trainer(in_span)
    path = in_span["span"].path
    trainer.fit(tmp_path / "run", progress=False)
    moved = path.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="holds no bases"):
        load_model(tmp_path / "run/best.pt")
    assert_same(load_model(tmp_path / "run/best.pt", span=moved).state_dict(), state_of(trainer))
    other = fit_span(in_span["train"], tmp_path / "bases", rank=20, progress=False)
    with pytest.raises(ValueError, match=f"holds bases {other.id}, expected {in_span['span'].id}"):
        load_model(tmp_path / "run/best.pt", span=other.path)


def test_run_in_other_bases_is_refused(in_span, tmp_path):
    span_trainer(in_span).fit(tmp_path / "run", progress=False)
    other = in_span | {
        "span": fit_span(in_span["train"], tmp_path / "bases", dtype=np.float64, progress=False)
    }
    with pytest.raises(ValueError, match=r"span=.*choose another folder"):
        span_trainer(other).fit(tmp_path / "run", progress=False)


def test_run_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("giblet.training.memory.free_memory", lambda device: 10_000)
    with pytest.raises(MemoryError, match="too small"):
        new_trainer().fit(tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
