"""A small shop, as a Django project: what `relet demo` serves.

Its one interesting request is `views.order`: read, wait for somebody else, write.
"""
