"""A Django project that servers serve. Its database is what the environment says."""
