"""A run that is finished: the smallest training, one fold, in a workspace that may be copied."""

from dataclasses import dataclass
from pathlib import Path

from commands import nnunet
from tiny_dataset import make_tiny

OPTIONS = (
    *("--set", "trainer.epochs=1", "--set", "trainer.iterations_per_epoch=2"),
    *("--set", "trainer.validation_iterations=1", "--set", "planner.max_batch_size=2"),
    *("--set", "planner.base_features=4"),
    *("--set", "predictor.mirroring=false", "--device", "cpu", "--precision", "float32"),
    *("--workers", "0", "--threads", "1", "--processes", "1"),
)
QUICK = ("--device", "cpu", "--precision", "float32", "--threads", "1")


@dataclass(frozen=True)
class Finished:
    """A workspace with one trained fold."""

    workspace: Path

    @property
    def dataset(self):
        return self.workspace / "raw" / "Dataset001_Tiny"

    @property
    def model(self):
        (path,) = self.workspace.glob("results/*/*/*/model.json")
        return path.parent

    @property
    def fold(self):
        return self.model / "fold_0"

    def again(self, command="run", *more):
        """Run or train with the same options."""
        options = (*more, "--folds", "0", "--workspace", self.workspace, *OPTIONS)
        return nnunet(command, self.dataset, *options)

    def predict(self, output, *options):
        return nnunet("predict", self.model, self.dataset / "imagesTs", output, *QUICK, *options)


def finish(workspace):
    """Make a dataset, with two images to predict, and train its first fold."""
    dataset = make_tiny(workspace / "raw" / "Dataset001_Tiny")
    for number in range(2):
        source = dataset / "imagesTr" / f"case_{number}_0000.nii.gz"
        target = dataset / "imagesTs" / f"new_{number}_0000.nii.gz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(source.read_bytes())
    finished = Finished(workspace)
    done = finished.again()
    assert done.returncode == 0, done.stderr
    return finished


def one_error(done, code=1):
    """Return the message of a failed command, the only thing of it that a user has to read."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1, done.stderr
    return done.stderr.partition("error:")[2]
