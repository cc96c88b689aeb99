import os
from importlib import import_module

DatabaseWrapper = import_module(f"{os.environ['RELET_SUITE_ENGINE']}.base").DatabaseWrapper
