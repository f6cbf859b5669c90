"""Select what predicts best: trained models, and all pairs of them as ensembles (spec:
postprocessing and selection, section 5).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_core.data.dataset import Dataset
from nnunet_core.errors import DatasetError, NnunetError, StorageError, UsageError, listed, nearest
from nnunet_core.prediction.averaging import Averaging, LabelFiles
from nnunet_core.prediction.ensemble import Member, average, common_cases, ensemble_record
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FoldRecord
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import evaluate_files, mean_foreground_dice, targets
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.stages.select import (
    Candidate,
    Fitting,
    Trained,
    consolidate,
    dice_by_name,
    fit_postprocessing,
)
from nnunet_core.store.inference import FILE, InferenceDocument, Score, member_record
from nnunet_core.store.models import FILE as MODEL_FILE
from nnunet_core.store.models import Model, weights_digests
from nnunet_core.store.origins import command
from nnunet_core.store.predictions import Beside, claim
from nnunet_core.store.probabilities import probabilities_file
from nnunet_core.store.summaries import SUMMARY, Summary

ENSEMBLES = "ensembles"
#: v1's order of configurations: of equal scores, the first one wins.
_ORDER = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
_RECEIVED = "it was imported or installed, without the predictions of validation cases"


@dataclass(frozen=True)
class Choice:
    """What is compared.

    Attributes:
        variants, configurations: Names; empty means every one that is trained.
        folds: Names; empty means every numbered fold that any of them has.
        ensembles: Whether pairs are compared, too.
        postprocess: Whether postprocessing is fitted.
        strict: Whether a configuration that is not complete is an error.
        trusted: Whether postprocessors of code that no plugin registers may run.
    """

    variants: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    ensembles: bool = True
    postprocess: bool = True
    strict: bool = False
    trusted: bool = False


@dataclass(frozen=True)
class Selection:
    """What was compared.

    Attributes:
        candidates: Models, then ensembles, in the order of comparison.
        left_out: {VARIANT/CONFIGURATION: why it was not compared}.
        inference: Where the best is written down; None where nothing was.
    """

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    inference: Path | None = None

    @property
    def best(self) -> Candidate:
        """The highest mean Dice of raw validation predictions; of equal ones the first, so that an
        ensemble must be better than its members.
        """
        return max(self.candidates, key=_score)


def find_best(
    dataset: Dataset,
    results: Path,
    registry: Registry,
    choice: Choice,
    report: Reporter,
    output: Path | None = None,
) -> Selection:
    """Compare the trained models of a dataset, and write down the best.

    Args:
        dataset: What they were trained on.
        results: Of the workspace.
        registry: Provides postprocessors.
        choice: What is compared.
        report: Where progress goes.
        output: Where inference.json goes; default: the results of the dataset.

    Raises:
        UsageError: Nothing is trained, names do not exist, or, if `strict`, a configuration is not
            complete.
        DatasetError: Models were validated on different cases.
        StorageError: Probabilities of validation cases are missing; the message says which commands
            make them.
    """
    folder = results / dataset.name
    found, left_out = find_trained(folder, dataset, choice)
    for title, reason in left_out.items():
        report.warning(f"{title} is left out: {reason}")
    models = [consolidate(each, dataset, registry, report, choice.postprocess) for each in found]
    return select(models, dataset, registry, choice, report, output or folder / FILE, left_out)


def select(
    models: Sequence[Candidate],
    dataset: Dataset,
    registry: Registry,
    choice: Choice,
    report: Reporter,
    output: Path,
    left_out: Mapping[str, str] | None = None,
) -> Selection:
    """Compare models, and their pairs if that is chosen; write the best to `output`. See
    `find_best`.
    """
    _check_same_cases(models)
    pairs = list(itertools.combinations(models, 2)) if choice.ensembles else []
    if pairs:
        _check_probabilities(models, registry)
    ensembles = [_ensemble(pair, dataset, registry, choice.postprocess, report) for pair in pairs]
    selection = Selection((*models, *ensembles), left_out or {}, output)
    write_inference(selection, dataset.name, output)
    return selection


def write_inference(selection: Selection, dataset: str, path: Path) -> None:
    """Write the best of a selection as inference.json."""
    best = selection.best
    ranked = sorted(selection.candidates, key=_score, reverse=True)
    InferenceDocument(
        dataset=dataset,
        members=tuple(member_record(m.model, m.folds, path.parent) for m in best.members),
        postprocessing=best.postprocessing,
        scores=tuple(
            Score(
                models=tuple(member.title for member in candidate.members),
                dice={name: _finite(value) for name, value in candidate.dice.items()},
                mean_dice=_finite(candidate.mean_dice),
                cases=candidate.cases,
            )
            for candidate in ranked
        ),
    ).write(path)


def find_trained(
    folder: Path, dataset: Dataset, choice: Choice
) -> tuple[list[Trained], dict[str, str]]:
    """Find the models of a dataset's results that are complete.

    Returns:
        The models, in the order of comparison, and {VARIANT/CONFIGURATION: why it is not complete}.

    Raises:
        UsageError: See `find_best`.
    """
    paths = {f"{p.parts[-3]}/{p.parts[-2]}": p.parent for p in folder.glob(f"*/*/{MODEL_FILE}")}
    titles = _chosen(sorted(paths, key=lambda title: _place(title, choice)), choice, folder)
    states = {title: _trained_folds(paths[title]) for title in titles}
    numbered = {f for folds, _ in states.values() for f in folds if f.isdigit()}
    wanted = choice.folds or tuple(sorted(numbered, key=int))
    complete, left_out = [], {}
    for title, (_, problem) in states.items():
        model = _complete(paths[title], wanted, dataset, choice.trusted)
        if isinstance(model, Model):
            complete.append(Trained(model, wanted))
        else:
            left_out[title] = "; ".join(filter(None, [model, problem]))
    if left_out and (choice.strict or not complete):
        raise UsageError(_nothing_compared(left_out, wanted, folder, strict=choice.strict))
    return complete, left_out


def _nothing_compared(
    left_out: Mapping[str, str], wanted: Sequence[str], folder: Path, *, strict: bool
) -> str:
    """Say why nothing is compared, and what can be done."""
    reasons = "\n".join(f"{title}: {reason}" for title, reason in left_out.items())
    if all(reason == _RECEIVED for reason in left_out.values()):
        return (
            f"No model in {folder} can be compared:\n{reasons}\nName the one that predicts: nnunet "
            f"predict {folder.name}/{next(iter(left_out))} IMAGES OUTPUT, or average several with "
            "'nnunet ensemble'."
        )
    folds = f"(folds {', '.join(wanted)})" if wanted else "(no fold is trained and validated)"
    how = "Train or validate what is missing"
    names = "name what to compare (--configurations, --variants, --folds)"
    ways = f"{how}, {names}, or leave out --strict." if strict else f"{how}, or {names}."
    which = "Not every" if strict else "No"
    return f"{which} configuration is complete {folds}:\n{reasons}\n{ways}"


def _chosen(titles: Sequence[str], choice: Choice, folder: Path) -> list[str]:
    """Return the titles that are asked for.

    Raises:
        UsageError: A name does not exist.
    """
    if not titles:
        raise UsageError(f"No model is trained in {folder}. 'nnunet train' does that.")
    there = [title.split("/") for title in titles]
    for asked, known, option in (
        (choice.variants, {variant for variant, _ in there}, "--variants"),
        (choice.configurations, {name for _, name in there}, "--configurations"),
    ):
        for name in asked:
            if name not in known:
                raise UsageError(
                    f"{option} names '{name}', of which there is no model in {folder}."
                    f"{nearest(name, known)} There are: {', '.join(sorted(known))}."
                )
    return [
        title
        for title, (variant, name) in zip(titles, there, strict=True)
        if variant in (choice.variants or (variant,)) and name in (choice.configurations or (name,))
    ]


def _place(title: str, choice: Choice) -> tuple[int, str, int, str]:
    """Return the place of a model in the comparison: as asked, else in v1's order."""
    variant, name = title.split("/")
    order = choice.configurations or _ORDER
    at = order.index(name) if name in order else len(order)
    of = choice.variants.index(variant) if variant in choice.variants else 0
    return of, variant, at, name


def _trained_folds(folder: Path) -> tuple[list[str], str]:
    """Return the folds of a model that are trained and validated, and what is wrong with it."""
    try:
        found = Model.open(folder).found_folds()
    except NnunetError as error:
        return [], str(error)
    broken = [f"fold {name}: {state}" for name, state in found.items() if isinstance(state, str)]
    records = {name: state for name, state in found.items() if isinstance(state, FoldRecord)}
    finished = [name for name, record in records.items() if record.status == "finished"]
    return finished, "; ".join(broken)


def _is_received(folder: Path) -> bool:
    try:
        return Model.open(folder).is_received
    except NnunetError:
        return False


def _complete(folder: Path, wanted: Sequence[str], dataset: Dataset, trusted: bool) -> Model | str:
    """Return a model of which every fold is trained and validated, or what is missing."""
    finished, _ = _trained_folds(folder)
    missing = [name for name in wanted if name not in finished]
    if missing or not wanted:
        if not finished and _is_received(folder):
            return _RECEIVED
        return (
            f"fold {', '.join(missing) or '0'} is not trained and validated (done: "
            f"{', '.join(finished) or 'none'})"
        )
    try:
        model = Model.open(folder, trusted)
        model.folds(tuple(wanted))
    except NnunetError as error:
        return str(error)
    if model.document.labels != dataset.labels:
        return f"it was trained with other labels than {dataset.folder} has now"
    return model


def _check_same_cases(models: Sequence[Candidate]) -> None:
    first = models[0]
    for other in models[1:]:
        mine, theirs = (Counter(name for name, _ in each.validation) for each in (first, other))
        if different := sorted({*(mine - theirs), *(theirs - mine)}):
            raise DatasetError(
                f"{first.title} and {other.title} were validated on different cases "
                f"({listed(different)}), so that their scores cannot be compared. The folds were "
                "changed between the trainings: train one of them again, or name what to compare "
                "(--variants, --configurations, --folds)."
            )


def _check_probabilities(models: Iterable[Candidate], registry: Registry) -> None:
    """Raise StorageError where validation cases have no probabilities."""
    commands = []
    for candidate in models:
        (trained,) = candidate.members
        bare = [
            fold
            for fold in trained.folds
            if any(
                not probabilities_file(path).is_file()
                for _, path in candidate.validation
                if path.is_relative_to(trained.model.fold_folder(fold))
            )
        ]
        if bare:
            document = trained.model.document
            words = ["--configuration", document.configuration_name, "--folds", ",".join(bare)]
            options = [*trained.model.options(registry), *words, "--save-probabilities"]
            commands.append(command("validate", document.dataset, options))
    if commands:
        raise StorageError(
            "Ensembles need the probabilities of the validation cases, and some are missing. Run\n"
            + "\n".join(f"  {line}" for line in commands)
            + "\nor compare without ensembles (--no-ensembles)."
        )


def _ensemble(
    pair: Sequence[Candidate],
    dataset: Dataset,
    registry: Registry,
    postprocess: bool,
    report: Reporter,
) -> Candidate:
    """Average the validation of two models, evaluate it, and fit the postprocessor of the first
    one; what is there of the same predictions is kept.
    """
    trained = tuple(member for candidate in pair for member in candidate.members)
    results = trained[0].model.folder.parents[1]
    names = [member.title.replace("/", ".") for member in trained]
    folder = below(results, ENSEMBLES, "--".join(names))
    outputs, summary = _validated(pair, folder / VALIDATION, dataset, report)
    validation = tuple(outputs.items())
    fitted = None
    if postprocess:
        weights = {f"{m.title} fold {f}": w for m in trained for f, w in _weights(m).items()}
        folds = sorted({fold for member in trained for fold in member.folds})
        fitting = Fitting(trained[0].model, dataset, validation, folds, weights)
        fitted = fit_postprocessing(fitting, folder, registry, report)
    content = summary.content()
    return Candidate(
        members=trained,
        folder=folder,
        dice=dice_by_name(content, dataset.labels),
        mean_dice=mean_foreground_dice(content),
        validation=validation,
        postprocessing=fitted,
    )


def _validated(
    pair: Sequence[Candidate], target: Path, dataset: Dataset, report: Reporter
) -> tuple[dict[str, Path], Summary]:
    """Average and evaluate the validation of two models; return the label files and the summary."""
    kind = LabelFiles(dataset.labels, dataset.label_ending, dataset.format_names[1])
    members = [_member(candidate, kind) for candidate in pair]
    places = [member.place for member in members]
    references = {name: _reference(dataset, name) for name in members[0].cases}
    digests = list(dataset.digests.of(list(references.values())))
    identity = files.digest(["validation", [member.identity for member in members], digests])
    record = ensemble_record(places, identity, kind, None)
    outputs = {name: below(target, f"{name}{kind.ending}") for name in references}
    summary = _stored_summary(target, list(outputs.values()), dataset)
    same = claim(target, record, list(outputs.values()), overwrite=True).is_done(Beside())
    if summary is None or not same:
        report.message(f"ensemble of {' and '.join(places)}")
        (target / SUMMARY).unlink(missing_ok=True)  # it is of what is replaced now
        averaging = Averaging(kind, dataset.label_format, dataset.label_format)
        average(common_cases(members), target, record, averaging, True, report)
        compared = [(outputs[name], reference) for name, reference in references.items()]
        found = evaluate_files(compared, dataset.labels, dataset.label_format, report=report)
        summary = Summary.model_validate(found)
        summary.write(target / SUMMARY)
    return outputs, summary


def _member(candidate: Candidate, kind: LabelFiles) -> Member:
    """Return the validation of a model as a member of an ensemble.

    Raises:
        DatasetError: A case is in several folds.
    """
    (trained,) = candidate.members
    cases = dict(candidate.validation)
    if len(cases) < len(candidate.validation):
        names = [name for name, _ in candidate.validation]
        double = sorted({name for name in names if names.count(name) > 1})
        raise DatasetError(
            f"Folds {', '.join(trained.folds)} validate cases more than once: {listed(double)}, so "
            "that an ensemble of them has no one prediction. Name folds that validate each case "
            "once (--folds), or compare without ensembles (--no-ensembles)."
        )
    predictor = trained.model.document.components["predictor"].identity()
    maps = [files.file_digest(path) for path in cases.values()]
    identity = files.digest([_weights(trained), predictor, list(cases), maps])
    return Member(candidate.title, kind, cases, identity)


def _reference(dataset: Dataset, name: str) -> Path:
    label = dataset.case(name).label
    assert label is not None  # a training case has one
    return label


def _weights(trained: Trained) -> dict[str, str]:
    return weights_digests(trained.model.fold_folder(fold) for fold in trained.folds)


def _stored_summary(folder: Path, outputs: Sequence[Path], dataset: Dataset) -> Summary | None:
    try:
        summary = Summary.read(folder / SUMMARY)
    except StorageError:
        return None
    names = {path.name for path in outputs}
    return None if summary.problem(folder, names, set(targets(dataset.labels))) else summary


def _score(candidate: Candidate) -> float:
    return -1.0 if math.isnan(candidate.mean_dice) else candidate.mean_dice


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
