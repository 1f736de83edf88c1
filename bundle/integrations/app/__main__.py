"""``python bundle/integrations/app``: the page for people who do not type."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import_module("server").main()  # it imports the bundle's code
