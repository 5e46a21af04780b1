"""Commands that work on machines rather than on a run folder's stages."""
