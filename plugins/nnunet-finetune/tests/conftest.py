import pytest
import torch
import toy_task
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def source(toy_datasets, tmp_path_factory):
    """The weights of a network for the toy dataset of volumes, as a training leaves them."""
    folder = tmp_path_factory.mktemp("source")
    task = toy_task.make_task(toy_datasets, folder)
    torch.manual_seed(11)
    network = task.network.build(task.configuration.network)
    save_file(network.state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"
