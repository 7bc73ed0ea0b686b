"""Destinations of events. Each is one module; only ``runtime.assembly`` knows which there are."""
