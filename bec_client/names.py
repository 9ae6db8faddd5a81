"""A name that is not there, or that cannot be assigned, told in a sentence."""

from __future__ import annotations

from bec_lib.errors import ParameterError


class WrongName(ParameterError, AttributeError):
    """Also an AttributeError, so that hasattr and completion work."""
