"""The models that come with the data pipeline: the curves of lmfit, and statistics.

This package is a plugin like everybody's: the entry point `lmfit` of the group `bec.models` names it.
"""

from data_pipeline.models.catalogue import LMFIT_MODELS
from data_pipeline.models.model import Analysis, CurveModel, Model, Outcome
from data_pipeline.models.statistics import STATISTICS

MODELS: list[Model] = [*LMFIT_MODELS, STATISTICS]

__all__ = ["MODELS", "Analysis", "CurveModel", "Model", "Outcome"]
