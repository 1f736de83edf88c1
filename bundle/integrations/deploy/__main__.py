"""``python bundle/integrations/deploy --input STUDY --output FOLDER``."""

from app import XraysToCT

XraysToCT().run()
