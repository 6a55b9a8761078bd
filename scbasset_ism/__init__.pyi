"""Types of the public names, which `__init__.py` imports on first use."""

from scbasset_ism.alleles import AlleleContributions as AlleleContributions
from scbasset_ism.alleles import attribute_alleles as attribute_alleles
from scbasset_ism.attributing import AttributionRunOptions as AttributionRunOptions
from scbasset_ism.attributing import attribute_windows as attribute_windows
from scbasset_ism.attributing import attribute_windows_part as attribute_windows_part
from scbasset_ism.attribution import AttributionOptions as AttributionOptions
from scbasset_ism.attribution import attribute as attribute
from scbasset_ism.attributions import Attributions as Attributions
from scbasset_ism.attributions import open_attributions as open_attributions
from scbasset_ism.checkpoint import (
    convert as convert,
)
from scbasset_ism.checkpoint import (
    load_model as load_model,
)
from scbasset_ism.checkpoint import (
    save_checkpoint as save_checkpoint,
)
from scbasset_ism.contributions import Contributions as Contributions
from scbasset_ism.contributions import save_modisco as save_modisco
from scbasset_ism.errors import ScbassetError as ScbassetError
from scbasset_ism.exporting import ExportOptions as ExportOptions
from scbasset_ism.exporting import export as export
from scbasset_ism.genome import Genome as Genome
from scbasset_ism.merging import merge as merge
from scbasset_ism.model import Config as Config
from scbasset_ism.model import Scbasset as Scbasset
from scbasset_ism.model import random_model as random_model
from scbasset_ism.normalizing import normalize_files as normalize_files
from scbasset_ism.pipeline import RunOptions as RunOptions
from scbasset_ism.prediction import (
    predict_regions as predict_regions,
)
from scbasset_ism.prediction import (
    predict_sequences as predict_sequences,
)
from scbasset_ism.progress import Part as Part
from scbasset_ism.reader import (
    Predictions as Predictions,
)
from scbasset_ism.reader import (
    Scores as Scores,
)
from scbasset_ism.reader import (
    open_predictions as open_predictions,
)
from scbasset_ism.reader import (
    open_scores as open_scores,
)
from scbasset_ism.runs import finalize as finalize
from scbasset_ism.saturation import (
    IsmOptions as IsmOptions,
)
from scbasset_ism.saturation import (
    saturate as saturate,
)
from scbasset_ism.saturation import (
    saturate_part as saturate_part,
)
from scbasset_ism.saturations import (
    Saturations as Saturations,
)
from scbasset_ism.saturations import (
    open_saturations as open_saturations,
)
from scbasset_ism.scoring import ScoreOptions as ScoreOptions
from scbasset_ism.scoring import score_part as score_part
from scbasset_ism.scoring import score_variants as score_variants
from scbasset_ism.variants import Status as Status
from scbasset_ism.variants import Variant as Variant

__version__: str
from scbasset_ism.accessibility import Accessibility as Accessibility
from scbasset_ism.accessibility import read_accessibility as read_accessibility
from scbasset_ism.calibration import Background as Background
from scbasset_ism.calibration import open_background as open_background
from scbasset_ism.credible import read_credible_sets as read_credible_sets
from scbasset_ism.evaluation import Metrics as Metrics
from scbasset_ism.evaluation import evaluate as evaluate
from scbasset_ism.examples import read_examples as read_examples
from scbasset_ism.finemap_tables import write_finemap as write_finemap
from scbasset_ism.finemapping import Finemap as Finemap
from scbasset_ism.finemapping import FinemapOptions as FinemapOptions
from scbasset_ism.finemapping import finemap as finemap
from scbasset_ism.groups import Groups as Groups
from scbasset_ism.groups import choose_labels as choose_labels
from scbasset_ism.groups import tabulate_groups as tabulate_groups
from scbasset_ism.groups import tabulate_slopes as tabulate_slopes
from scbasset_ism.recipe import Recipe as Recipe
from scbasset_ism.training import TrainOptions as TrainOptions
from scbasset_ism.training import train as train
