"""Old name of :mod:`reprism.evaluation.refined`, for one version."""

from reprism.deprecation import renamed

__getattr__ = renamed(__name__, SharpenedDistances="reprism.evaluation.refined:RefinedDistances")
