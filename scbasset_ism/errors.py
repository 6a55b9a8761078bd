"""Errors that a user can act on: what, where, and what to do."""


class ScbassetError(Exception):
    """Base of every error that the command line shows as one sentence."""


class GenomeError(ScbassetError):
    """The FASTA can't be read, or its contigs don't match."""


class VariantError(ScbassetError):
    """A variant, or a file of variants, can't be read."""


class ReferenceMismatchError(VariantError):
    """The genome has other bases than REF."""


class RegionError(ScbassetError):
    """A region, or a file of regions, can't be read."""


class CheckpointError(ScbassetError):
    """The weights don't make a scBasset."""


class SequenceError(ScbassetError):
    """A sequence does not fit the model."""


class AccessibilityError(ScbassetError):
    """A matrix of peaks and cells can't be read, or does not fit what it is used for."""


class TrainingError(ScbassetError):
    """A model can't be trained as asked."""


class DeviceError(ScbassetError):
    """There is no such device here."""


class SelfCheckError(ScbassetError):
    """Scores differ from those of two full passes by more than rounding."""


class StoreError(ScbassetError):
    """A store can't be written or read."""


class GroupError(ScbassetError):
    """Cells can't be grouped as asked."""


class CalibrationError(ScbassetError):
    """A background does not fit what it is to be compared with."""


class CredibleSetError(ScbassetError):
    """A file of credible sets can't be read, or does not fit the store."""


class ExportError(ScbassetError):
    """A store can't be written as the file that was asked for."""
