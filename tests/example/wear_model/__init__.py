"""A user's own model for learnd: ``model: {factory: wear_model:make}``."""

from wear_model.model import WearModel, make, robust

__all__ = ["WearModel", "make", "robust"]
