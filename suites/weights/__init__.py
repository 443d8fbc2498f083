"""Trained weights of the catalogue's models, as safetensors; README.md says how they were made."""
