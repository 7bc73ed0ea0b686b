"""A run put together: settings into objects, calls into records, modes and drivers."""
