"""Suites: schema, plan, runner, artefact store, results, targets, the depth task, and the command line."""
