"""Recipes: everything a training run is made of, typed; and the named ones of the paper and of the released code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reprism.data import LOADERS
from reprism.data.joint import named_data
from reprism.data.video import VideoSettings
from reprism.files import write_json
from reprism.imports import is_import_path
from reprism.notation import Partition
from reprism.terminal import did_you_mean

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

SCR = "p1+p2(s2c2)+p3(s3c3)"

_WRITTEN = ("split_file", "cache")  # options of data sets that name what they write
_LONGEST_NAME = 100
_POOLS, _HEADS = ("max", "avg", "gem"), ("paper", "bnneck")  # what models/parts.py has, which needs torch

Freeze = Literal["none", "trunk", "branches"]
LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]
NotComputed = "does not change what is computed"
"""Marks fields of a recipe that may change between the sittings of a run, such as where the data are."""

CameLater = "is left out of the names of runs while it has its default"
"""Marks fields that recipes have not always had: runs that were named before them keep their names."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class RecipeError(ValueError):
    """A recipe that does not exist or does not work; the message names the field and the reason."""


def _faults(error: ValidationError) -> str:
    """Return pydantic's findings on one line: each field with the reason, without notes to programmers."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: "
        + " ".join(fault["msg"].removeprefix("Value error, ").split())
        for fault in error.errors()
    )


class _OneLine(ModelMetaclass):
    """Turns pydantic's errors into one line where settings are made by a call, as the command line does."""

    def __call__(self, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **fields)
        except ValidationError as error:
            raise RecipeError(_faults(error)) from error


class _Settings(BaseModel, metaclass=_OneLine):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


class DataSettings(_Settings):
    """Images, batches and augmentation."""

    name: str = "market1501"
    """Name of the data set, as reprism.open_dataset takes it; or package.module:load, a loader of your own."""
    root: Annotated[Path | None, NotComputed] = None
    """Folder of the data set."""
    options: dict[str, str] = {}
    """Options of the data set's loader, such as: boxes labelled."""
    also: Annotated[tuple[str, ...], CameLater] = ()
    """Further data sets to train on, each as NAME:DIR; identities are kept apart. Evaluation is on the first."""
    size: tuple[Positive, Positive] = (384, 192)
    """Height and width of the network's images, in pixels."""
    ids_per_batch: Positive = 8
    """Identities in a batch, on each device (P)."""
    images_per_id: Positive = 4
    """Images of each identity in a batch (K)."""
    flip: Fraction = 0.5
    """Probability of mirroring a training image."""
    erasing: Fraction = 0.0
    """Probability of erasing a random rectangle of a training image."""
    pad_crop: NotNegative = 0
    """Pixels to pad a training image by, before a random crop of its old size; 0: off."""
    color_jitter: Fraction = 0.0
    """Maximum relative change of a training image's brightness, contrast and saturation."""
    sampler: Annotated[str | None, CameLater] = None
    """Batch sampler of your own: package.module:make, called with the training set, the rank and the number of
    processes (default: P identities with K images each)."""
    transform: Annotated[str | None, CameLater] = None
    """Augmentation of your own: package.module:make, called with the model's preprocessing (default: as set above)."""
    cache: Annotated[Literal["none", "ram"], NotComputed] = "none"
    """ram decodes every training image once and keeps it in memory (24 kB each at 128x64)."""
    validation: Annotated[Fraction, CameLater] = 0.0
    """Share of the training identities to set aside; evaluations during training are on them, and the epoch that is
    best on them is kept. 0 trains on all, evaluates on the test set, and keeps the last epoch."""
    on_error: Literal["raise", "skip"] = "raise"
    """Stop at an unreadable image (raise), or set it aside and report it at the end (skip)."""
    workers: Annotated[NotNegative | None, NotComputed] = None
    """Processes that decode and augment images (default: 1 on a CPU, up to 8 with a GPU)."""
    eval_batch: Positive = 64
    """Images per batch in evaluation."""
    video: VideoSettings = VideoSettings()
    """Frames of a tracklet, and how their descriptors become one, in evaluation."""

    @field_validator("video", mode="before")
    @classmethod
    def _earlier_versions_said_runs(cls, video: object) -> object:
        if isinstance(video, Mapping) and "runs" in video:
            return {**{name: value for name, value in video.items() if name != "runs"}, "segments": video["runs"]}
        return video


class ModelSettings(_Settings):
    """The network."""

    partition: str = SCR
    """Branches and parts, such as p1+p2(s2c2)+p3(s3c3)."""
    backbone: str = "resnet50.tv_in1k"
    """timm network, or residual_attention56."""
    part_dim: Positive = 256
    """Width of every part's feature."""
    pool: Annotated[str, CameLater] = "max"
    """Pooling of the maps: max (the paper's), avg, gem (generalised mean with a learned exponent), or
    package.module:make, called without arguments."""
    head: Annotated[str, CameLater] = "paper"
    """Head of every part: paper, bnneck (batch normalisation as a neck between triplet loss and classifier), or
    package.module:make, called with the widths of its input and of its feature."""
    pretrained: bool | Path = True
    """Starting weights: True (timm downloads ImageNet's), False (random), a local file in timm's layout, or an earlier
    model of the same backbone, with any partition: what the two have in common is taken."""
    freeze: Annotated[Freeze, CameLater] = "none"
    """Keep the trunk, or the trunk and the branches, as they start; their batch statistics too."""

    @model_validator(mode="after")
    def _partition_parses(self) -> ModelSettings:
        Partition.parse(self.partition)
        for name, value, known in (("pool", self.pool, _POOLS), ("head", self.head, _HEADS)):
            if value not in known and not is_import_path(value):
                raise ValueError(f"expected {name} {', '.join(known)} or package.module:make, got {value!r}")
        return self


class LossSettings(_Settings):
    """The total loss (paper equation 3)."""

    use: Annotated[str | None, CameLater] = None
    """Loss of your own: package.module:make, called with the model (default: the total loss, by the settings below)."""
    ce_weight: Amount = 2.0
    """Weight of the mean cross-entropy (lambda)."""
    triplet_weight: Amount = 1.0
    """Weight of the mean triplet loss; 0 trains without it."""
    margin: Amount = 1.2
    """Margin of the triplet loss."""
    label_smoothing: Fraction = 0.0
    """Label smoothing of the cross-entropy."""
    gather: Annotated[bool, CameLater] = False
    """Compute the loss on the batches of all devices together, so that triplets are mined over the whole step."""


class OptimizerSettings(_Settings):
    """Adam and its learning rate schedule."""

    epochs: Positive = 500
    """Epochs. In each, every identity is shown once with K of its images."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate."""
    factors: Annotated[dict[Literal["trunk", "branches", "heads", "classifiers"], Amount], CameLater] = {}
    """Factors of the learning rate by part of the network, such as: trunk 0.1 branches 0.1."""
    weight_decay: Amount = 5e-4
    """L2 regularisation of every parameter."""
    amsgrad: bool = True
    """Use AMSGrad."""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps multiplies the rate by gamma at each milestone; cosine lowers it to zero along half a cosine."""
    milestones: tuple[float, ...] = (300, 400)
    """Epochs after which the learning rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor at each milestone."""
    warmup: Amount = 0.0
    """Epochs over which the learning rate rises linearly from zero."""
    ema: Annotated[Annotated[float, Field(ge=0, lt=1)], CameLater] = 0.0
    """Decay of an exponential moving average of the weights, such as 0.999; it is evaluated and saved in place of the
    weights themselves. 0: off."""


class TrainerSettings(_Settings):
    """Devices, precision, evaluation and checkpoints."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """Kind of device."""
    devices: Positive = 1
    """Devices per machine. More than one train by distributed data parallelism."""
    num_nodes: Positive = 1
    """Number of machines."""
    sync_batchnorm: Annotated[bool, CameLater] = False
    """Take batch statistics over the batches of all devices together."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the feature maps (heads and losses stay float32); auto takes the fastest the hardware has."""
    compile: Annotated[Literal["no", "default", "reduce-overhead", "max-autotune"], CameLater] = "no"
    """Mode of torch.compile for the training step: the first step takes minutes. Meant for GPUs, where reduce-overhead
    replays CUDA graphs; on a CPU it does not pay."""
    accumulate: Positive = 1
    """Batches whose gradients are added up for one step."""
    evaluate_every: NotNegative = 50
    """Epochs between evaluations on query and gallery; 0 evaluates after the last one only."""
    patience: Annotated[NotNegative, CameLater] = 0
    """Evaluations in a row without a better mAP after which training stops early; needs data.validation. 0: never."""
    flip_test: bool = True
    """Add the mirrored image's descriptor in evaluation."""
    checkpoint_seconds: Annotated[Amount, NotComputed] = 300
    """Minimum seconds between resume points; 0 saves after every step."""
    log_every: Annotated[Positive, NotComputed] = 10
    """Steps between log lines."""
    loggers: Annotated[tuple[LoggerName, ...], NotComputed] = ("tensorboard",)
    """Logs of losses and scores. csv/ is always written; wandb and mlflow must be installed."""


class Recipe(_Settings):
    """A training run: same recipe, seed, versions and machine give the same weights."""

    name: str = "scr-market1501"
    """Name of the run, and of its folder: without / and \\, and no longer than 100 characters."""
    seed: NotNegative = 0
    """Random seed of starting weights, batches and augmentation."""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    trainer: TrainerSettings = TrainerSettings()

    @model_validator(mode="after")
    def _validation_fits(self) -> Recipe:
        if self.data.validation and not self.trainer.evaluate_every:
            raise ValueError("data.validation needs evaluations during training: give trainer.evaluate_every")
        if self.trainer.patience and not self.data.validation:
            raise ValueError(
                "trainer.patience needs data.validation, a share of the training identities: the test set must not "
                "decide when training stops"
            )
        return self

    @field_validator("name")
    @classmethod
    def _name_is_one_of_a_folder(cls, name: str) -> str:
        # The run folder is runs/NAME: a recipe from elsewhere must not choose another.
        if len(name) > _LONGEST_NAME or name[:1] in (".", "~") or not name.isprintable() or set(name) & set("/\\"):
            raise ValueError(f"{name!r} cannot be a folder's name: take letters, digits and -, without / and \\")
        return name


def what_is_computed(recipe: Recipe, *, named: bool = False) -> dict[str, Any]:
    """Return a recipe's values, JSON-ready, without the fields that do not change what is computed.

    Args:
        recipe: The recipe.
        named: Also leave out fields that came later and have their default: the values that a run is named by.
    """
    values = recipe.model_dump(mode="json")
    for section in type(recipe).model_fields:
        settings = getattr(recipe, section)
        if not isinstance(settings, _Settings):
            continue
        for field, about in type(settings).model_fields.items():
            usual = named and CameLater in about.metadata and getattr(settings, field) == about.get_default()
            if usual or NotComputed in about.metadata:
                del values[section][field]
    return values


def code_of(recipe: Recipe) -> dict[str, str]:
    """Return the import paths of what a recipe takes from outside Reprism, by field."""
    named = {
        "data.name": recipe.data.name,
        "data.sampler": recipe.data.sampler,
        "data.transform": recipe.data.transform,
        "model.pool": recipe.model.pool,
        "model.head": recipe.model.head,
        "loss.use": recipe.loss.use,
    }
    for number, text in enumerate(recipe.data.also):
        named[f"data.also[{number}]"] = named_data(text, LOADERS)[0]
    return {field: value for field, value in named.items() if value is not None and is_import_path(value)}


def scr(name: str, dataset: str, **options: str) -> Recipe:
    """Return the paper's settings (section 4.1), the same for every data set."""
    return Recipe(name=name, data=DataSettings(name=dataset, options=options))


def released(recipe: Recipe) -> Recipe:
    """Return a recipe with the released code's settings where they differ from the paper's: 4×4 batches, erasing."""
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-released",
            "data": recipe.data.model_copy(update={"ids_per_batch": 4, "images_per_id": 4, "erasing": 0.5}),
        }
    )


_PAPER = (
    scr("scr-market1501", "market1501"),
    scr("scr-dukemtmc", "dukemtmc"),
    scr("scr-cuhk03-labelled", "cuhk03", boxes="labelled"),
    scr("scr-cuhk03-detected", "cuhk03", boxes="detected"),
    scr("scr-mars", "mars"),
)

_CPU_HOUR = Recipe(
    name="cpu-hour",
    data=DataSettings(
        size=(192, 96), ids_per_batch=16, images_per_id=4, erasing=0.5, pad_crop=8, cache="ram", workers=0
    ),
    model=ModelSettings(partition="p2(s2c2)+p3(s3c3)", backbone="tf_efficientnet_lite0"),
    loss=LossSettings(label_smoothing=0.1),
    optimizer=OptimizerSettings(epochs=76, lr=1e-3, amsgrad=False, schedule="cosine", warmup=2),
    trainer=TrainerSettings(evaluate_every=0),
)

_CPU_MINUTES = Recipe(
    name="cpu-minutes",
    # Both cores are busy with the network; a worker process would only take turns with it.
    data=DataSettings(size=(96, 48), cache="ram", workers=0),
    model=ModelSettings(partition="p1+p2(s2c2)", backbone="resnet10t", part_dim=64, pretrained=False),
    optimizer=OptimizerSettings(epochs=25, lr=4e-3, schedule="cosine", warmup=1),
    # fp32: on CPUs mixed precision gains nothing for a network this small, and figures compare better.
    trainer=TrainerSettings(precision="fp32", evaluate_every=5, log_every=2),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*_PAPER, *map(released, _PAPER), _CPU_HOUR, _CPU_MINUTES)
}
"""The named recipes: the paper's, the released code's variants of them, and two for two CPU cores.

``cpu-hour`` is the best that they train in an hour on 500 identities (docs/explanation/benchmarks.md). ``cpu-minutes``
trains a small network from random weights on drawn people, as ``reprism demo`` does.
"""


def find_recipe(source: str) -> Recipe:
    """Return a recipe by name, from a YAML or JSON file, or from the folder of an earlier run.

    Args:
        source: A key of :data:`RECIPES`; a ``.yaml``, ``.yml`` or ``.json`` file with any of a recipe's fields and,
            optionally, ``recipe``: the named one that it changes; or a run folder, whose ``recipe.json`` is read.

    Raises:
        RecipeError: It is none of these, or a field is unknown or out of range.
    """
    if source in RECIPES:
        return RECIPES[source]
    path = Path(source)
    if path.is_dir():
        path /= "recipe.json"
    if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
        raise RecipeError(
            f"no recipe {source!r}: it is neither a named one, nor a YAML or JSON file, nor a run folder."
            f"{did_you_mean(source, RECIPES)} Named recipes: {', '.join(RECIPES)}."
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"expected a mapping of field names to values in {path}, got {type(values).__name__}")
    base = values.pop("recipe", None)
    if base is not None and base not in RECIPES:
        raise RecipeError(
            f"{path} changes the recipe {base!r}, which is none of {', '.join(RECIPES)}.{did_you_mean(base, RECIPES)}"
        )
    _check_written(path, values)
    start = RECIPES[base].model_dump() if base is not None else {"name": path.stem}
    try:
        return Recipe.model_validate(_merged(start, values))
    except ValidationError as error:
        raise RecipeError(f"{path} is no recipe: {_faults(error)}") from error


def _check_written(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse a recipe file that would write outside the working directory.

    Files that exist already are only read: a run's own recipe names what it once wrote.

    Raises:
        RecipeError: An option of the data set names a file or folder to be made outside the working directory.
    """
    data = values.get("data")
    options = data.get("options") if isinstance(data, Mapping) else None
    for option in _WRITTEN:
        target = options.get(option) if isinstance(options, Mapping) else None
        if not isinstance(target, str) or not target:
            continue
        given = Path(target)
        if (given.is_absolute() or ".." in given.parts or target[0] == "~") and not given.expanduser().exists():
            raise RecipeError(
                f"{path}: data.options.{option} would write {target}, outside the working directory. If you want that, "
                f"remove it from the file and give it yourself: --data.options {option} {target}"
            )


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as JSON, as :func:`find_recipe` reads it."""
    write_json(path, recipe.model_dump(mode="json"))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        # options replace each other: one data set's options mean nothing to another.
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "options"
        merged[key] = _merged(merged[key], value) if nested else value
    return merged
