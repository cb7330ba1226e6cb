import pytest
import torch

from giblet.models import MultimodalAutoencoder
from giblet.training.memory import check_memory, free_memory, plan_memory

CPU = torch.device("cpu")


@pytest.fixture
def direct() -> MultimodalAutoencoder:
    with torch.device("meta"):
        return MultimodalAutoencoder()


def with_free(monkeypatch, gigabytes: float) -> None:
    monkeypatch.setattr("giblet.training.memory.free_memory", lambda device: int(gigabytes * 1e9))


def test_plan_counts_every_copy_of_the_weights(direct, monkeypatch):
    """Weights, gradients, two moments and the best weights so far: 5 x 7.74 GB, and activations."""
    with_free(monkeypatch, 50)
    plan = check_memory(direct, 736, 32, CPU)
    activations = plan.parts["activations"]
    assert sum(plan.parts.values()) == 5 * 4 * 1_935_360_498 + activations
    assert plan.needed == 4 * 4 * 1_935_360_498 + activations
    assert "38." in str(plan)
    assert "weights 7.74" in str(plan)


def test_model_that_does_not_fit_is_refused_with_what_would(direct, monkeypatch):
    with_free(monkeypatch, 16)
    with pytest.raises(
        MemoryError, match=r"38\.\d GB to train.*what would fit: span training \(1\.\d GB\)\.$"
    ) as error:
        check_memory(direct, 736, 32, CPU)
    assert "frame_skip" not in str(error.value)  # it would not be enough
    with_free(monkeypatch, 25)
    with pytest.raises(MemoryError, match=r"span training.*twice the frame_skip \(2\d\.\d GB\)"):
        check_memory(direct, 736, 32, CPU)


def test_smaller_batch_is_named_where_it_helps(direct, monkeypatch):
    """At 4,096 TRs a batch the activations decide."""
    need = {n: plan_memory(direct, n, CPU).needed / 1e9 for n in (4096, 2048, 512)}
    with_free(monkeypatch, (need[2048] + need[4096]) / 2)
    with pytest.raises(MemoryError, match=r"batches of 2048 .*batches of 512"):
        check_memory(direct, 736, 4096, CPU)
    with_free(monkeypatch, 0.001)
    with pytest.raises(MemoryError, match="neither a smaller batch nor fewer frames would fit"):
        check_memory(direct, 736, 32, CPU)


def test_shards_are_named_where_several_ranks_could_share(direct, monkeypatch):
    """Eight ranks hold an eighth of every copy of the weights, and all of the activations."""
    with_free(monkeypatch, 16)
    monkeypatch.setattr("giblet.training.memory.n_ranks", lambda: 8)
    with pytest.raises(MemoryError, match=r"or shard \(\d\.\d GB\)\.$"):
        check_memory(direct, 736, 32, CPU)
    plan = check_memory(direct, 736, 32, CPU, n_shards=8)
    assert plan.needed - plan.parts["activations"] == pytest.approx(16 * 1_935_360_498 / 8, abs=8)


def test_free_memory_is_shared_by_the_ranks_of_a_machine(monkeypatch):
    before = free_memory(CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(CPU) == pytest.approx(before / 4, rel=0.1)


def test_free_memory_is_between_nothing_and_everything():
    import psutil

    assert 0 < free_memory(CPU) <= psutil.virtual_memory().total


def test_free_memory_of_a_gpu_counts_what_torch_holds_and_does_not_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 25)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert free_memory(torch.device("cuda")) == 70
