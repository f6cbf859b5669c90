"""A card with too little memory is one message that says what to change."""

import pytest
import small_training as small
import torch
from small_on_card import runtime_on, with_network

from nnunet_core.errors import TrainingError
from nnunet_core.store.models import WEIGHTS

pytestmark = pytest.mark.gpu

MIB = 2**20
LEFT = 128 * MIB
#: The features of its first convolution alone take 256 MiB in float32.
WIDE = with_network(small.CONFIGURATION, base_features=16)
HUGE = WIDE.model_copy(update={"patch_size": (128, 128, 128)})


@pytest.fixture
def little_memory(card):
    """A card of which this process may use no more than a little."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(card).total_memory
    allowed = torch.cuda.memory_reserved(card) + LEFT
    torch.cuda.set_per_process_memory_fraction(allowed / total, card)
    yield card
    torch.cuda.set_per_process_memory_fraction(1.0, card)
    torch.cuda.empty_cache()


def test_too_little_memory_is_one_message_and_the_process_goes_on(tmp_path, little_memory):
    runtime = runtime_on(little_memory)
    with pytest.raises(TrainingError) as caught:
        small.train(tmp_path / "fold_0", runtime=runtime, configuration=HUGE)
    message = str(caught.value)
    assert message.startswith("cuda:0 has too little memory: CUDA out of memory.")
    assert message.endswith("--set trainer.batch_size=..., --set planner.gpu_memory_gb=...")
    assert "\n" not in message
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    del caught
    torch.cuda.empty_cache()
    smaller = small.train(tmp_path / "fold_0", runtime=runtime)
    assert (smaller / WEIGHTS).is_file()
