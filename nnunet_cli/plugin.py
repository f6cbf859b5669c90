"""The plugin `commands`: the commands of the method itself, registered as anybody's are."""

from __future__ import annotations

from nnunet_core import Component, hookimpl

_COMMANDS = {
    "run": (
        "run:run",
        "Plan, preprocess, train, validate and evaluate; optionally predict a folder.",
    ),
    "plan": ("steps:plan", "Make and show the plans of a dataset."),
    "preprocess": ("steps:preprocess", "Prepare the cases of a dataset for training."),
    "train": ("steps:train", "Train and validate folds."),
    "validate": ("steps:validate", "Validate trained folds again; trains nothing."),
    "find-best": (
        "find_best:find_best",
        "Compare what is trained, and ensembles of it; write down what predicts.",
    ),
    "predict": ("predict:predict", "Predict images with a trained model."),
    "ensemble": ("ensemble:ensemble", "Average the probabilities of several predictions."),
    "postprocess": (
        "postprocess:postprocess",
        "Clean label maps: fit a postprocessor, or apply one.",
    ),
    "models list": ("models:list_models", "List the trained models of the workspace."),
    "models show": (
        "models:show",
        "Show one model: its folds, components, and the command that trains it.",
    ),
    "plugins list": ("plugins:list_plugins", "List every plugin and component."),
    "plugins show": ("plugins:show", "Show one component with its settings."),
    "plugins check": (
        "check:check",
        "Check whether a plugin or component keeps the contracts.",
    ),
    "doctor": (
        "doctor:doctor",
        "Show versions, devices, folders and problems of this installation.",
    ),
}


@hookimpl
def nnunet_commands() -> list[Component]:
    """Return the commands, in the order in which people need them."""
    return [
        Component(name, f"nnunet_cli.{target}", line) for name, (target, line) in _COMMANDS.items()
    ]
