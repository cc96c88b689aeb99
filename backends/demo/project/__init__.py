"""A small shop: the Django project that `relet demo` serves.

The request that matters is `views.order`: read, wait for another service, write.
"""
