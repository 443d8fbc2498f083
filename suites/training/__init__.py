"""The training loop: recipe, data, losses, state that survives a kill."""
