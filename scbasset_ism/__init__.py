"""From a VCF to the effect of every variant in every single cell.

The public names are imported when they are first used, so that the command line answers at once.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Accessibility": "accessibility",
    "AlleleContributions": "alleles",
    "AttributionOptions": "attribution",
    "AttributionRunOptions": "attributing",
    "Attributions": "attributions",
    "Background": "calibration",
    "Config": "model",
    "Contributions": "contributions",
    "ExportOptions": "exporting",
    "Finemap": "finemapping",
    "FinemapOptions": "finemapping",
    "Genome": "genome",
    "Groups": "groups",
    "IsmOptions": "saturation",
    "Metrics": "evaluation",
    "Part": "progress",
    "Predictions": "reader",
    "Recipe": "recipe",
    "RunOptions": "pipeline",
    "Saturations": "saturations",
    "Scbasset": "model",
    "ScbassetError": "errors",
    "ScoreOptions": "scoring",
    "Scores": "reader",
    "Status": "variants",
    "TrainOptions": "training",
    "Variant": "variants",
    "attribute": "attribution",
    "attribute_alleles": "alleles",
    "attribute_windows": "attributing",
    "attribute_windows_part": "attributing",
    "choose_labels": "groups",
    "convert": "checkpoint",
    "evaluate": "evaluation",
    "export": "exporting",
    "finalize": "runs",
    "finemap": "finemapping",
    "load_model": "checkpoint",
    "merge": "merging",
    "normalize_files": "normalizing",
    "open_attributions": "attributions",
    "open_background": "calibration",
    "open_predictions": "reader",
    "open_saturations": "saturations",
    "open_scores": "reader",
    "predict_regions": "prediction",
    "predict_sequences": "prediction",
    "random_model": "model",
    "read_accessibility": "accessibility",
    "read_credible_sets": "credible",
    "read_examples": "examples",
    "saturate": "saturation",
    "saturate_part": "saturation",
    "save_checkpoint": "checkpoint",
    "save_modisco": "contributions",
    "score_part": "scoring",
    "score_variants": "scoring",
    "tabulate_groups": "groups",
    "tabulate_slopes": "groups",
    "train": "training",
    "write_finemap": "finemap_tables",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
