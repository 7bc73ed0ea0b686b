"""Settings: argument before environment before default, checked once."""

from lezea_mlops.config.settings import Settings, load_settings

__all__ = ["Settings", "load_settings"]
