import pytest
import torch
import torch._inductor.config  # torch would import it on first use, and trip over the machines made up below
from torch import nn

from imgcls.config.train_keys import TrainConfig
from imgcls.errors import InputError
from imgcls.training.device import prepare_device


@pytest.fixture(autouse=True)
def torch_as_it_was():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only, benchmark = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA devices, and Metal or not."""

    def make(num_cuda=0, has_mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index or 0}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
        # Set and taken away, so that it is taken away again after the test.
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")

    return make


@pytest.mark.parametrize(
    ("num_cuda", "has_mps", "asked", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (1, True, "auto", "cuda"),
        (2, True, "cpu", "cpu"),
        (1, True, "mps", "mps"),
        (1, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
    ],
)
def test_the_device_that_is_asked_for_or_the_best_there_is(machine, num_cuda, has_mps, asked, expected):
    machine(num_cuda, has_mps)
    assert str(prepare_device(TrainConfig(device=asked)).torch_device) == expected


@pytest.mark.parametrize(
    ("num_cuda", "asked", "message"),
    [
        (0, "cuda", r"train\.device = 'cuda', but torch sees 0 CUDA devices here; use auto or cpu"),
        (2, "cuda:2", r"train\.device = 'cuda:2', but torch sees 2 CUDA devices here; use auto or cpu"),
        (0, "cuda:99", r"train\.device = 'cuda:99', but torch sees 0 CUDA devices here; use auto or cpu"),
        (1, "mps", r"train\.device = 'mps', but torch has no Metal device here; use auto or cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_and_never_replaced(machine, num_cuda, asked, message):
    machine(num_cuda)
    with pytest.raises(InputError, match=message):
        prepare_device(TrainConfig(device=asked))


@pytest.mark.parametrize(
    ("device", "precision", "autocast"),
    [
        ("cpu", "auto", False),
        ("cpu", "float32", False),
        ("cpu", "bfloat16", True),
        ("mps", "auto", False),
        ("cuda", "auto", True),
        ("cuda", "float32", False),
        ("cuda", "bfloat16", True),
    ],
)
def test_bfloat16_where_it_helps_or_is_asked_for(machine, device, precision, autocast):
    machine(1, has_mps=True)
    assert prepare_device(TrainConfig(device=device, precision=precision)).autocast is autocast


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_forward_context_is_what_the_precision_says(precision, dtype):
    device = prepare_device(TrainConfig(device="cpu", precision=precision))
    with device.forward_context():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
    assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_threads_are_set_and_given_back_to_torchs_choice():
    chosen = prepare_device(TrainConfig(device="cpu", threads=0)).threads
    for threads in (1, 3):
        assert prepare_device(TrainConfig(device="cpu", threads=threads)).threads == threads
        assert torch.get_num_threads() == threads
    assert prepare_device(TrainConfig(device="cpu", threads=0)).threads == chosen == torch.get_num_threads()


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_kernels_are_asked_for(deterministic):
    prepare_device(TrainConfig(device="cpu", deterministic=deterministic))
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


@pytest.mark.parametrize(
    ("layer", "channels_last"),
    [
        (nn.Conv2d(3, 8, 3, stride=2), True),
        (nn.Conv2d(16, 8, 1, stride=2), True),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(15, 8, 1, stride=2), False),
        (nn.Conv2d(32, 8, 1, stride=(1, 2), groups=4), False),
    ],
    ids=lambda value: str(value) if isinstance(value, nn.Module) else "",
)
def test_convolutions_are_channels_last_but_where_onednn_would_corrupt_memory(layer, channels_last):
    model = prepare_device(TrainConfig(device="cpu")).place(nn.Sequential(nn.Conv2d(3, 8, 3), layer))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last) is channels_last


def test_activations_take_the_layout_of_the_weights():
    device = prepare_device(TrainConfig(device="cpu"))
    for channels in (1, 3):
        model = device.place(nn.Conv2d(channels, 16, 3))
        assert model(torch.rand(2, channels, 8, 8)).is_contiguous(memory_format=torch.channels_last)


def test_a_device_has_a_name_for_people(machine):
    machine(2)
    assert prepare_device(TrainConfig(device="cuda:1")).name == "GPU 1"
    assert prepare_device(TrainConfig(device="cpu")).name.strip()


def test_seeding_a_device_is_seeding_torch():
    prepare_device(TrainConfig(device="cpu")).seed(5)
    drawn = torch.rand(8)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(8))
