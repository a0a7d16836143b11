"""All real models by name."""

from real_convnets import CONVNETS
from real_models import Case, recorded_weights
from real_transformers import TRANSFORMERS
from real_variants import VARIANTS

MODELS = VARIANTS | TRANSFORMERS | CONVNETS


def build(name: str) -> tuple[Case, dict]:
    """Return a new model with what is expected of it, and its variables' owners."""
    with recorded_weights() as owners:
        return MODELS[name](), owners
