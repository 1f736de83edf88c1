"""``python bundle/integrations/app``: the page for people who do not type."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from server import main  # it imports the bundle's code

main()
