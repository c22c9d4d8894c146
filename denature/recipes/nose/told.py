"""The former name of `service_answers`, for scripts that import it; gone with the next release."""

from denature.recipes.nose.service_answers import load_recorded as written_down

__all__ = ["written_down"]
