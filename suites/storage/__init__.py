"""The store of artefacts: content-addressed, locked, verified, kept within the disk."""
