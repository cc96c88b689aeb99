"""The engine under test, under a name that is no namespace package.

Some of Django's tests look for the file of the engine's top-level package.
"""
